//! Flannel's network configuration list, with the plugin in it and without. Pure: text in, text out.
//!
//! The text is edited, not written anew: all that is not the plugin's entry stays as it is, to the byte.

use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// The plugin that ours comes after.
const FLANNEL: &str = "flannel";

/// Our plugin: the name of its binary.
pub const PLUGIN: &str = "selvedge-cni";

/// What an ADD comes to when the daemon does not do its part in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnreachable {
    /// The pod does not start, and kubelet tries again.
    #[default]
    Fail,
    /// The pod starts.
    Pass,
}

/// The plugin's entry in the list, in the order in which it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    r#type: &'static str,
    socket: PathBuf,
    timeout: u64,
    on_unreachable: OnUnreachable,
}

impl Entry {
    /// An entry that asks the daemon on this socket, and waits for it for so many seconds.
    pub fn new(socket: PathBuf, timeout: u64, on_unreachable: OnUnreachable) -> Self {
        Self {
            r#type: PLUGIN,
            socket,
            timeout,
            on_unreachable,
        }
    }
}

/// Why a configuration can't be changed.
#[derive(Debug, thiserror::Error)]
pub enum ConflistError {
    /// It is no list.
    #[error("it is no CNI configuration list: {0}")]
    NoList(#[from] serde_json::Error),
    /// It is another network's.
    #[error("it has no plugin of type flannel")]
    NotFlannel,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow, default)]
    plugins: Vec<&'a RawValue>,
}

/// A plugin of the list: its type, and where it stands in the text.
struct Place {
    kind: String,
    at: Range<usize>,
}

fn places(text: &str) -> Result<Vec<Place>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(default)]
        r#type: String,
    }
    let list: List = serde_json::from_str(text)?;
    let places = list.plugins.into_iter().map(|plugin| {
        // It is a part of the text.
        let start = plugin.get().as_ptr().addr() - text.as_ptr().addr();
        let Typed { r#type: kind } = serde_json::from_str(plugin.get())?;
        Ok(Place {
            kind,
            at: start..start + plugin.get().len(),
        })
    });
    places.collect()
}

/// Whether the text is a list with Flannel's plugin in it.
///
/// # Errors
/// When it is no list.
pub fn is_flannel(text: &str) -> Result<bool, ConflistError> {
    Ok(places(text)?.iter().any(|place| place.kind == FLANNEL))
}

/// Whether the text is a configuration of Multus's, which hands pods on to other networks.
pub fn is_multus(text: &str) -> bool {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let types = value.get("plugins").and_then(Value::as_array);
    let types = types.into_iter().flatten().chain([&value]);
    types
        .filter_map(|plugin| plugin.get("type")?.as_str())
        .any(|kind| kind == "multus" || kind == "multus-shim")
}

/// Whether our plugin is in it.
///
/// # Errors
/// When it is no list.
pub fn has_plugin(text: &str) -> Result<bool, ConflistError> {
    Ok(places(text)?.iter().any(|place| place.kind == PLUGIN))
}

/// The list with our plugin after Flannel's; `None` where it is there as it should be.
///
/// # Errors
/// [`ConflistError`], and nothing is to be changed.
pub fn insert(text: &str, entry: &Entry) -> Result<Option<String>, ConflistError> {
    let before = places(text)?;
    let flannel = before.iter().position(|place| place.kind == FLANNEL);
    let flannel = flannel.ok_or(ConflistError::NotFlannel)?;
    let wanted = serde_json::to_value(entry)?;
    let ours = before.iter().enumerate();
    let ours: Vec<_> = ours.filter(|(_, place)| place.kind == PLUGIN).collect();
    if let [(index, place)] = ours.as_slice()
        && *index > flannel
        && serde_json::from_str::<Value>(part(text, &place.at)).is_ok_and(|there| there == wanted)
    {
        return Ok(None);
    }
    let without = remove(text)?;
    let text = without.as_deref().unwrap_or(text);
    let places = places(text)?;
    let flannel = places.iter().find(|place| place.kind == FLANNEL);
    let at = flannel.ok_or(ConflistError::NotFlannel)?.at.clone();
    // As Flannel's own entry stands in its line.
    let head = part(text, &(0..at.start));
    let indent = part(head, &(head.trim_end().len()..head.len()));
    let (head, tail) = (part(text, &(0..at.end)), part(text, &(at.end..text.len())));
    let entry = serde_json::to_string(entry)?;
    Ok(Some(format!("{head},{indent}{entry}{tail}")))
}

/// The list without our plugin; `None` where it is not in it.
///
/// # Errors
/// [`ConflistError`], and nothing is to be changed.
pub fn remove(text: &str) -> Result<Option<String>, ConflistError> {
    let mut text = text.to_owned();
    let mut any = false;
    loop {
        let places = places(&text)?;
        let Some(ours) = places.iter().position(|place| place.kind == PLUGIN) else {
            return Ok(any.then_some(text));
        };
        any = true;
        // With the comma before it, or else with the one after it.
        let before = ours.checked_sub(1).and_then(|index| places.get(index));
        let (place, after) = (places.get(ours), places.get(ours + 1));
        let cut = match (place, before, after) {
            (Some(place), Some(before), _) => before.at.end..place.at.end,
            (Some(place), None, Some(after)) => place.at.start..after.at.start,
            (Some(place), None, None) => place.at.clone(),
            (None, ..) => return Ok(any.then_some(text)),
        };
        text.replace_range(cut, "");
    }
}

fn part<'a>(text: &'a str, range: &Range<usize>) -> &'a str {
    text.get(range.clone()).unwrap_or_default()
}

#[cfg(test)]
#[path = "conflist_tests.rs"]
mod tests;
