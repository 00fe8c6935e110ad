//! The process's own figures, under the names that every Prometheus client gives them.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// USER_HZ, what /proc counts time in: 100 on every architecture that Kubernetes runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads /proc/self whenever metrics are asked for. What can't be read is left out.
#[derive(Debug)]
pub(super) struct Process {
    /// When the process started, in seconds since the epoch.
    started: Option<f64>,
}

impl Process {
    pub fn of_this() -> Self {
        let ticks = read_stat().map(|stat| stat.started);
        let boot = fs::read_to_string("/proc/stat").ok();
        let boot = boot.as_deref().and_then(boot_time);
        Self {
            started: boot.zip(ticks).map(|(boot, t)| boot + t / TICKS_PER_SECOND),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut put = |name, help, unit: Option<Unit>, metric: &dyn EncodeMetric| {
            let of_type = metric.metric_type();
            metric.encode(encoder.encode_descriptor(name, help, unit.as_ref(), of_type)?)
        };
        if let Some(stat) = read_stat() {
            let used = ConstCounter::new(stat.cpu / TICKS_PER_SECOND);
            let help = "Processor time used, in user and system mode.";
            put("process_cpu", help, Some(Unit::Seconds), &used)?;
        }
        let status = fs::read_to_string("/proc/self/status").ok();
        if let Some(bytes) = status.as_deref().and_then(resident_bytes) {
            let help = "Resident memory.";
            let bytes = ConstGauge::new(bytes);
            put("process_resident_memory", help, Some(Unit::Bytes), &bytes)?;
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One of them is this directory.
            let open = entries.count().saturating_sub(1) as u64;
            let help = "Open file descriptors.";
            put("process_open_fds", help, None, &ConstGauge::new(open))?;
        }
        if let Some(started) = self.started {
            let help = "Start time of the process since the epoch.";
            let started = ConstGauge::new(started);
            put("process_start_time", help, Some(Unit::Seconds), &started)?;
        }
        Ok(())
    }
}

/// What is wanted of /proc/PID/stat, in ticks.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu: f64,
    started: f64,
}

fn read_stat() -> Option<Stat> {
    stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// Reads /proc/PID/stat (proc_pid_stat(5)): the name, in parentheses, may hold anything.
fn stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first is field 3, the state.
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some(Stat {
        cpu: ticks(14)? + ticks(15)?,
        started: ticks(22)?,
    })
}

fn boot_time(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_as_it_is_written() {
        let text = "42 (a b) c) S 1 2 3 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5 0 123456 1000 200 18446744073709551615";
        let expected = Stat {
            cpu: 300.0,
            started: 123_456.0,
        };
        assert_eq!(stat(text), Some(expected));
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nx 1\n"), Some(1.7e9));
        let status = "Name:\tx\nVmRSS:\t    2048 kB\n";
        assert_eq!(resident_bytes(status), Some(2 * 1024 * 1024));
    }

    #[test]
    fn what_can_t_be_read_is_none() {
        for text in [
            "",
            "42 (x",
            "42 (x) S 1",
            "42 (x) S a b c d e f g h i j k l",
        ] {
            assert_eq!(stat(text), None, "{text:?}");
        }
        assert_eq!(boot_time("cpu 1\n"), None);
        assert_eq!(resident_bytes("VmRSS: many\n"), None);
    }
}
