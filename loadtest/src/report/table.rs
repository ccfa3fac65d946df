//! Stages as lines of text.

use super::{Quantiles, Report, Stage};
use crate::scenario::Scenario;

/// A column: its title and what stands in it.
type Column = (&'static str, fn(&Stage) -> String);

const COLUMNS: [Column; 13] = [
    ("size", |stage| stage.size.to_string()),
    ("join ms\np50/p95/p99", |stage| three(&stage.join)),
    ("1st frame ms\np50/p95/p99", |stage| three(&stage.first_frame)),
    ("delay ms\np50/p99/max", |stage| delay(&stage.delay)),
    ("loss %\nraw/repaired", |stage| format!("{}/{}", percent(stage.loss), percent(stage.loss_after_repair))),
    ("Mb/s", |stage| format!("{:.0}", stage.megabits_per_s)),
    ("kpps", |stage| format!("{:.1}", stage.packets_per_s / 1000.0)),
    ("CPU µs/packet\nuser+sys", |stage| {
        let cpu = |cpu: super::Cpu| {
            format!("{:.2} = {:.2}+{:.2}", cpu.per_packet(), cpu.user_per_packet, cpu.system_per_packet)
        };
        stage.cpu.map_or_else(dash, cpu)
    }),
    ("cores\nbusy", |stage| stage.cpu.map_or_else(dash, |cpu| format!("{:.2}", cpu.busy))),
    ("kpps/core", |stage| stage.cpu.map_or_else(dash, |cpu| format!("{:.0}", cpu.kpps_per_core()))),
    ("RSS\nMiB", |stage| stage.cpu.map_or_else(dash, |cpu| format!("{:.1}", cpu.rss as f64 / f64::from(1 << 20)))),
    ("kB per\nperson", |stage| stage.cpu.map_or_else(dash, |cpu| format!("{:.0}", cpu.rss_per_participant / 1000.0))),
    ("generator\ncores", |stage| format!("{:.2}/{}", stage.generator_busy, stage.generator_cores)),
];

fn dash() -> String {
    "–".into()
}

/// Milliseconds, with as many digits as tell something.
pub(super) fn ms(ms: f64) -> String {
    if ms >= 100.0 {
        format!("{ms:.0}")
    } else if ms >= 10.0 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.2}")
    }
}

fn percent(percent: f64) -> String {
    if percent == 0.0 { "0".into() } else { format!("{percent:.3}") }
}

fn three(quantiles: &Quantiles) -> String {
    if quantiles.count == 0 {
        return dash();
    }
    format!("{}/{}/{}", ms(quantiles.p50), ms(quantiles.p95), ms(quantiles.p99))
}

fn delay(quantiles: &Quantiles) -> String {
    if quantiles.count == 0 {
        return dash();
    }
    format!("{}/{}/{}", ms(quantiles.p50), ms(quantiles.p99), ms(quantiles.max))
}

/// The cells of a table: two lines of head, then a line per stage.
pub(super) fn cells(stages: &[Stage]) -> (Vec<[&'static str; 2]>, Vec<Vec<String>>) {
    let head = COLUMNS.iter().map(|(title, _)| match title.split_once('\n') {
        Some((above, below)) => [above, below],
        None => [*title, ""],
    });
    let rows = stages.iter().map(|stage| COLUMNS.iter().map(|(_, cell)| cell(stage)).collect());
    (head.collect(), rows.collect())
}

/// The head of a report: what was tested, on what.
pub fn title(report: &Report) -> String {
    let shape = match report.scenario {
        Scenario::T => String::new(),
        _ => format!(", {} publisher(s), {}", report.publishers, report.pacing),
    };
    format!(
        "{}: scenario {:?} ({}){shape}; {}; {} cores of {}, Linux {}; seed {}",
        report.server,
        report.scenario,
        report.scenario.title(),
        report.suite,
        report.machine.cores,
        report.machine.cpu,
        report.machine.kernel,
        report.seed
    )
}

/// All stages, aligned.
pub fn render(stages: &[Stage]) -> String {
    let (head, rows) = cells(stages);
    let width = |column: usize| {
        let titles = head[column].iter().map(|line| line.chars().count());
        titles.chain(rows.iter().map(|row| row[column].chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:>width$}", width = *width));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut head.iter().map(|title| title[0]));
    text += &line(&mut head.iter().map(|title| title[1]));
    for row in &rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// Stages as they come: the head with the first, then a line for each and what is remarkable.
#[derive(Debug, Default)]
pub struct Lines {
    begun: bool,
}

impl Lines {
    pub fn next(&mut self, stage: &Stage) -> String {
        let text = render(std::slice::from_ref(stage));
        let skipped = if std::mem::replace(&mut self.begun, true) { 2 } else { 0 };
        let remarks = remarks(stage).into_iter().map(|remark| format!("      {remark}"));
        text.lines().skip(skipped).map(str::to_owned).chain(remarks).map(|line| line + "\n").collect()
    }
}

/// What does not fit into the columns.
pub fn remarks(stage: &Stage) -> Vec<String> {
    let mut remarks = Vec::new();
    if stage.switch.count > 0 {
        remarks.push(format!("layer switches: {} ms (p50/p95/p99 of {})", three(&stage.switch), stage.switch.count));
    }
    if stage.recovery.count > 0 {
        remarks.push(format!(
            "repair: {} ms (p50/p95/p99 of {} packets), {} asked for, {} retransmissions",
            three(&stage.recovery),
            stage.recovery.count,
            stage.nacks_sent,
            stage.retransmissions
        ));
    }
    if stage.broken_pictures > 0 {
        remarks.push(format!("pictures that broke, until a keyframe: {}", stage.broken_pictures));
    }
    if stage.longest_pause_ms > 0.0 {
        remarks.push(format!("longest pause of a stream: {} ms", ms(stage.longest_pause_ms)));
    }
    if let Some(syscalls) = stage.syscalls_per_packet {
        remarks.push(format!("system calls per packet: {syscalls:.3}"));
    }
    if let Some(churn) = stage.churn {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        remarks.push(format!(
            "{} joins, {} failed; RSS {:.1} → {:.1} MiB, open files {} → {}",
            churn.joins,
            churn.failed,
            mib(churn.rss_before),
            mib(churn.rss_after),
            churn.open_files_before,
            churn.open_files_after
        ));
    }
    if let Some(allocations) = &stage.allocations {
        let cpu = allocations.cpu_us.map_or_else(String::new, |us| format!(", {us:.0} µs of CPU time each"));
        remarks.push(format!("{} allocations, {:.0} new ones a second{cpu}", allocations.ready, allocations.per_s));
    }
    remarks.extend(stage.warnings().into_iter().map(|warning| format!("warning: {warning}")));
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Cpu;

    #[test]
    fn columns_line_up() {
        let mut stage = Stage { size: 5, packets_per_s: 1234.0, ..Stage::default() };
        let large = Stage { size: 1000, cpu: Some(Cpu { user_per_packet: 1.0, ..Cpu::default() }), ..stage.clone() };
        let text = render(&[stage.clone(), large]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[2].starts_with("   5 ") && lines[3].starts_with("1000 "), "{text}");
        assert!(lines[3].contains("1.00 = 1.00+0.00"));
        assert!(remarks(&stage).is_empty());
        stage.forged = 3;
        assert_eq!(remarks(&stage), ["warning: 3 packets did not open with their keys"]);
    }
}
