//! The text of the metrics: OpenMetrics 1.0, and the older text format 0.0.4 for who asks for nothing newer.
//!
//! Both are described by Prometheus at <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// The media type of OpenMetrics.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The media type of the older format.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A registry's metrics in OpenMetrics.
pub(super) fn open_metrics(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

/// Whether a client with this `Accept` header reads OpenMetrics.
pub fn accepts_open_metrics(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next() == Some("application/openmetrics-text");
        named && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// The older format's text for one in OpenMetrics. There a family bears the name of its samples (`…_total`, `…_info`)
/// and an info is a gauge; units and the end have no line.
pub fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = typed.split_once(' ') else {
                continue;
            };
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, help)) = help.take().filter(|(described, _)| *described == name) {
                text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_accepts() {
        // Prometheus 2 and 3, and what curl and a browser send.
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert!(accepts_open_metrics(prometheus));
        assert!(accepts_open_metrics(
            "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8; q=0.6, */*;q=0.1"
        ));
        assert!(!accepts_open_metrics("*/*"));
        assert!(!accepts_open_metrics("text/plain;version=0.0.4"));
        assert!(!accepts_open_metrics("application/openmetrics-text;q=0"));
        assert!(!accepts_open_metrics(""));
    }

    #[test]
    fn the_older_format_names_families_after_their_samples() {
        let open = "# HELP a Help.\n# TYPE a counter\na_total 1\n# HELP b_seconds H.\n# TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 2\n# HELP c I.\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        assert_eq!(
            classic(open),
            "# HELP a_total Help.\n# TYPE a_total counter\na_total 1\n# HELP b_seconds H.\n# TYPE b_seconds gauge\nb_seconds 2\n# HELP c_info I.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n"
        );
    }
}
