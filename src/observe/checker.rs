//! For tests: reads an exposition and refuses whatever the format, or our own rules for names, forbid.

use std::collections::{BTreeMap, BTreeSet};

/// Labels by name.
pub(crate) type Labels = BTreeMap<String, String>;

/// What was exposed: the type of each family, and the value of each series.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    pub types: BTreeMap<String, String>,
    pub series: BTreeMap<(String, Labels), f64>,
}

impl Exposition {
    /// The value of the one series of this name, with these labels (`key=value,key=value`) where they are not empty.
    pub fn value(&self, name: &str, label: &str) -> f64 {
        let wanted: Labels = label
            .split(',')
            .filter_map(|label| label.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        match self.series.get(&(name.to_owned(), wanted)) {
            Some(value) => *value,
            None => panic!("there is no {name} {label}: {:#?}", self.series.keys()),
        }
    }

    /// Every label, with its values.
    pub fn labels(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (key, value) in self.series.keys().flat_map(|(_, labels)| labels) {
            labels.entry(key.clone()).or_default().insert(value.clone());
        }
        labels
    }
}

/// The format to check by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    Classic,
}

/// A family while its lines come.
struct Family {
    name: String,
    kind: String,
    unit: Option<String>,
}

/// Reads a whole exposition.
pub(crate) fn check(text: &str, format: Format) -> Result<Exposition, String> {
    let body = match format {
        Format::OpenMetrics => text.strip_suffix("# EOF\n").ok_or("no # EOF at the end")?,
        Format::Classic => text,
    };
    if !body.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    let mut exposition = Exposition::default();
    let mut family: Option<Family> = None;
    let mut help: Option<String> = None;
    for line in body.lines() {
        let wrong = |what: &str| Err(format!("{what}: {line:?}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let Some((name, text)) = rest.split_once(' ') else {
                return wrong("HELP without a text");
            };
            if text.len() < 5 || !text.ends_with('.') || text.ends_with("..") {
                return wrong("HELP is no sentence");
            }
            help = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else {
                return wrong("TYPE without a type");
            };
            if help.take().as_deref() != Some(name) {
                return wrong("TYPE without HELP before it");
            }
            name_is_ours(name, kind, format)?;
            let known = exposition.types.insert(name.to_owned(), kind.to_owned());
            if known.is_some() {
                return wrong("a family in two places");
            }
            family = Some(Family {
                name: name.to_owned(),
                kind: kind.to_owned(),
                unit: None,
            });
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (Format::OpenMetrics, Some(family)) = (format, &mut family) else {
                return wrong("a unit in the wrong place");
            };
            let Some((name, unit)) = rest.split_once(' ') else {
                return wrong("UNIT without a unit");
            };
            if name != family.name || !name.ends_with(&format!("_{unit}")) {
                return wrong("the name does not end in its unit");
            }
            family.unit = Some(unit.to_owned());
        } else if line.starts_with('#') || line.trim() != line || line.is_empty() {
            return wrong("no line of the format");
        } else {
            let Some(family) = &family else {
                return wrong("a sample without a family");
            };
            let (name, labels, value) = sample(line)?;
            belongs(&name, &labels, value, family, format)
                .map_err(|what| format!("{what}: {line:?}"))?;
            let key = (name, labels);
            if exposition.series.insert(key, value).is_some() {
                return wrong("a series twice");
            }
        }
    }
    if help.is_some() {
        return Err("HELP without TYPE".to_owned());
    }
    histograms(&exposition)?;
    Ok(exposition)
}

/// `name{key="value",…} value`
fn sample(line: &str) -> Result<(String, Labels, f64), String> {
    let wrong = |what: &str| format!("{what}: {line:?}");
    let (series, value) = line.rsplit_once(' ').ok_or_else(|| wrong("no value"))?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        _ => value.parse().map_err(|_| wrong("no number"))?,
    };
    let (name, inside) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').ok_or_else(|| wrong("no end"))?),
        None => (series, ""),
    };
    let mut labels = Labels::new();
    for pair in inside.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| wrong("no label"))?;
        let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        let inner = inner.ok_or_else(|| wrong("a value without quotes"))?;
        let escapes = inner.contains(['"', '\\', '\n', ',']);
        if !is_name(key) || escapes || labels.insert(key.to_owned(), inner.to_owned()).is_some() {
            return Err(wrong("a bad label"));
        }
    }
    match is_name(name) {
        true => Ok((name.to_owned(), labels, value)),
        false => Err(wrong("a bad name")),
    }
}

fn is_name(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest)
}

/// Names are snake case with our prefix, in base units.
fn name_is_ours(name: &str, kind: &str, format: Format) -> Result<(), String> {
    let ours = name.starts_with("selvedge_") || name.starts_with("process_");
    let small = [
        "milli", "micro", "nano", "_ms", "_us", "minutes", "kib", "mib", "_kb", "percent",
    ];
    if !ours || !is_name(name) || name.contains("__") || small.iter().any(|s| name.contains(s)) {
        return Err(format!("no name for a metric of ours: {name:?}"));
    }
    let total = name.ends_with("_total");
    let expected = format == Format::Classic && kind == "counter";
    if total != expected {
        return Err(format!("_total is not for {kind} {name:?}"));
    }
    match kind {
        "counter" | "gauge" | "histogram" => Ok(()),
        "info" if format == Format::OpenMetrics => Ok(()),
        _ => Err(format!("an unknown type: {kind:?}")),
    }
}

fn belongs(
    name: &str,
    labels: &Labels,
    value: f64,
    family: &Family,
    format: Format,
) -> Result<(), String> {
    let suffix = name
        .strip_prefix(&family.name)
        .ok_or("not of this family")?;
    let allowed: &[&str] = match (family.kind.as_str(), format) {
        ("counter", Format::OpenMetrics) => &["_total"],
        ("info", _) => &["_info"],
        ("histogram", _) => &["_bucket", "_sum", "_count"],
        _ => &[""],
    };
    if !allowed.contains(&suffix) {
        return Err("a name that its type does not have".to_owned());
    }
    if (suffix == "_bucket") != labels.contains_key("le") {
        return Err("le is for buckets".to_owned());
    }
    if value.is_nan() || (family.kind != "gauge" && value < 0.0) {
        return Err("a value that can't be".to_owned());
    }
    // Whole names of units, so that a forgotten unit is found.
    let dimension = ["seconds", "bytes"]
        .iter()
        .find(|unit| family.name.contains(**unit));
    match (dimension, &family.unit, format) {
        (Some(unit), None, Format::OpenMetrics) => Err(format!("{unit} without UNIT")),
        _ => Ok(()),
    }
}

/// Buckets are in order, cumulative, and end with the count.
fn histograms(exposition: &Exposition) -> Result<(), String> {
    for (name, _) in exposition
        .types
        .iter()
        .filter(|(_, kind)| *kind == "histogram")
    {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for ((series, labels), value) in &exposition.series {
            if *series == format!("{name}_bucket") {
                let le = labels.get("le").ok_or("a bucket without le")?;
                let le = match le.as_str() {
                    "+Inf" => f64::INFINITY,
                    le => le.parse().map_err(|_| format!("le is no number: {le}"))?,
                };
                buckets.push((le, *value));
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let rising = buckets
            .windows(2)
            .all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1);
        let last = buckets.last().copied();
        let count = exposition.value(&format!("{name}_count"), "");
        if !rising || last != Some((f64::INFINITY, count)) || buckets.len() < 2 {
            return Err(format!("the buckets of {name} don't add up: {buckets:?}"));
        }
        exposition.value(&format!("{name}_sum"), "");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "# HELP selvedge_a Help it.\n# TYPE selvedge_a counter\nselvedge_a_total{kind=\"x\"} 1\n# HELP selvedge_t_seconds Help it.\n# TYPE selvedge_t_seconds histogram\n# UNIT selvedge_t_seconds seconds\nselvedge_t_seconds_sum 1\nselvedge_t_seconds_count 2\nselvedge_t_seconds_bucket{le=\"1.0\"} 1\nselvedge_t_seconds_bucket{le=\"+Inf\"} 2\n# EOF\n";

    #[test]
    fn what_is_unsound_is_refused() {
        let sound = check(SOUND, Format::OpenMetrics).unwrap();
        assert_eq!(sound.value("selvedge_a_total", "kind=x"), 1.0);
        for (from, to) in [
            ("# EOF\n", ""),
            ("# HELP selvedge_a Help it.\n", ""),
            ("# HELP selvedge_a Help it.", "# HELP selvedge_a ."),
            ("selvedge_a_total", "selvedge_a"),
            ("selvedge_a_total", "selvedge_b_total"),
            ("kind=\"x\"", "kind=x"),
            ("kind=\"x\"", "le=\"1\""),
            ("} 1\n", "} x\n"),
            ("} 1\n", "} -1\n"),
            ("} 1\n", "} 1\nselvedge_a_total{kind=\"x\"} 1\n"),
            ("# UNIT selvedge_t_seconds seconds\n", ""),
            ("seconds seconds", "seconds bytes"),
            ("_bucket{le=\"1.0\"} 1", "_bucket{le=\"1.0\"} 3"),
            ("_count 2", "_count 3"),
            ("le=\"+Inf\"", "le=\"7\""),
            ("selvedge_a ", "other_a "),
        ] {
            let broken = SOUND.replace(from, to);
            assert_ne!(broken, SOUND, "{from:?}");
            assert!(check(&broken, Format::OpenMetrics).is_err(), "{broken}");
        }
    }
}
