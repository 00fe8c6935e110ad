//! Whether the API server lets a kind of objects be read, for `selvedge doctor`.

use super::access::{ApiError, Connection};
use super::answer;
use super::follow::path;
use crate::cluster::object::{Object, ObjectKind};

/// Lists a few objects of a kind and begins to watch them; of the nodes only `only`, where one is named. The answer is
/// what the list's first page holds.
///
/// # Errors
/// [`ApiError`] when either can't be done.
pub async fn check(
    connection: &Connection,
    kind: ObjectKind,
    only: Option<&str>,
) -> Result<Vec<Object>, ApiError> {
    let only = only.filter(|_| kind == ObjectKind::Node);
    let listed = connection
        .get_all(&path(kind, only, &[("limit", "1")]))
        .await?;
    let page = answer::page(kind, &listed)?;
    let watch = [
        ("watch", "true"),
        ("timeoutSeconds", "1"),
        ("resourceVersion", &page.version),
    ];
    // That it begins is enough.
    connection.get(&path(kind, only, &watch)).await?;
    let objects = page.entries.into_iter().filter_map(|e| e.result.ok());
    Ok(objects.map(|decoded| decoded.object).collect())
}
