//! Servers side by side: the same scenario on the same machine, in turns, several times over. One measurement says little on a
//! machine that does other things too; the least and the median of several say more.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::Scenario;
use crate::machine::Machine;
use crate::report::Stage;

/// One scenario of the scoreboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub scenario: Scenario,
    pub size: usize,
}

impl std::str::FromStr for Entry {
    type Err = String;

    /// `V=100`.
    fn from_str(text: &str) -> Result<Entry, String> {
        let wrong = || format!("{text}: write a scenario and its size, e.g. V=100");
        let (scenario, size) = text.split_once('=').ok_or_else(wrong)?;
        let scenario = <Scenario as clap::ValueEnum>::from_str(scenario, true).map_err(|_| wrong())?;
        let size = size.parse().ok().filter(|size| *size > 0).ok_or_else(wrong)?;
        Ok(Entry { scenario, size })
    }
}

/// One measurement of one server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trial {
    pub server: String,
    pub scenario: Scenario,
    pub publishers: usize,
    pub suite: String,
    pub stage: Stage,
}

/// All of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scoreboard {
    pub machine: Machine,
    pub pacing: String,
    pub trials: Vec<Trial>,
}

/// A column: its title, and the number in it.
type Column = (&'static str, fn(&Stage) -> Option<f64>);

const COLUMNS: [Column; 4] = [
    ("delay p50 ms", |stage| Some(stage.delay.p50)),
    ("delay p99 ms", |stage| Some(stage.delay.p99)),
    ("first frame p50 ms", |stage| Some(stage.first_frame.p50)),
    ("kB per person", |stage| stage.cpu.map(|cpu| cpu.rss_per_participant / 1000.0)),
];

impl Scoreboard {
    /// A Markdown table for each scenario. The first server is the one that the others are compared with.
    pub fn markdown(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "{} cores of {}, Linux {}; the server on a core of its own, the generator on the others; frames leave publishers as {}.\n",
            machine.cores, machine.cpu, machine.kernel, self.pacing
        );
        let mut scenarios: Vec<Scenario> = Vec::new();
        for trial in &self.trials {
            if !scenarios.contains(&trial.scenario) {
                scenarios.push(trial.scenario);
            }
        }
        for scenario in scenarios {
            let trials: Vec<&Trial> = self.trials.iter().filter(|trial| trial.scenario == scenario).collect();
            text += &table(scenario, &trials);
        }
        text
    }
}

fn table(scenario: Scenario, trials: &[&Trial]) -> String {
    let Some(first) = trials.first() else { return String::new() };
    let mut by_server: BTreeMap<&str, Vec<&Trial>> = BTreeMap::new();
    let mut servers: Vec<&str> = Vec::new();
    for trial in trials {
        if !servers.contains(&trial.server.as_str()) {
            servers.push(&trial.server);
        }
        by_server.entry(&trial.server).or_default().push(trial);
    }
    let title = match scenario {
        Scenario::M => format!("{0} × {0}", first.stage.size),
        _ => format!("{} → {}", first.publishers, first.stage.size),
    };
    let mut text = format!("\n### {scenario:?}, {}: {title}\n\n", scenario.title());
    let titles: String = COLUMNS.iter().map(|(title, _)| format!(" {title} |")).collect();
    let _ = writeln!(
        text,
        "| server | suite | kpps | CPU µs/packet, least | median = user + system | kpps/core |{titles} loss % | ratio |"
    );
    let _ = writeln!(text, "|---|---|---|---|---|---|{}---|---|", "---|".repeat(COLUMNS.len()));
    let per_packet = |trial: &&Trial| trial.stage.cpu.map(|cpu| cpu.per_packet());
    let of = |server: &str, value: &dyn Fn(&&Trial) -> Option<f64>| -> Vec<f64> {
        let mut values: Vec<f64> = by_server[server].iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let base = median(&of(servers[0], &per_packet));
    for server in &servers {
        let costs = of(server, &per_packet);
        let cost = median(&costs);
        let user = median(&of(server, &|trial| trial.stage.cpu.map(|cpu| cpu.user_per_packet)));
        let system = median(&of(server, &|trial| trial.stage.cpu.map(|cpu| cpu.system_per_packet)));
        let columns: String = COLUMNS
            .iter()
            .map(|(_, value)| format!(" {} |", shown(median(&of(server, &|trial| value(&trial.stage))))))
            .collect();
        let _ = writeln!(
            text,
            "| {server} | {} | {:.1} | {} | {} = {} + {} | {:.0} |{columns} {:.3} | {} |",
            by_server[server][0].suite,
            median(&of(server, &|trial| Some(trial.stage.packets_per_s / 1000.0))).unwrap_or(0.0),
            shown(costs.first().copied()),
            shown(cost),
            shown(user),
            shown(system),
            cost.map_or(0.0, |cost| 1000.0 / cost),
            median(&of(server, &|trial| Some(trial.stage.loss_after_repair))).unwrap_or(0.0),
            match (cost, base) {
                (Some(cost), Some(base)) if base > 0.0 => format!("{:.2}×", cost / base),
                _ => "–".into(),
            }
        );
    }
    let _ = writeln!(text, "\n{} trials of {:.0} s each.", by_server[servers[0]].len(), first.stage.seconds);
    text
}

/// Of sorted values.
fn median(values: &[f64]) -> Option<f64> {
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[count / 2]),
        count => Some(values[count / 2 - 1].midpoint(values[count / 2])),
    }
}

fn shown(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Cpu;

    fn trial(server: &str, cost: f64) -> Trial {
        let cpu = Cpu { user_per_packet: cost / 4.0, system_per_packet: cost * 0.75, ..Cpu::default() };
        let stage = Stage { size: 100, seconds: 5.0, packets_per_s: 15_000.0, cpu: Some(cpu), ..Stage::default() };
        Trial { server: server.into(), scenario: Scenario::V, publishers: 1, suite: "AEAD_AES_256_GCM".into(), stage }
    }

    #[test]
    fn the_table_has_the_least_the_median_and_the_ratio() {
        let trials = [("ours", 2.0), ("other", 8.0), ("ours", 4.0), ("other", 12.0), ("ours", 3.0), ("other", 9.0)];
        let scoreboard = Scoreboard {
            machine: Machine { cpu: "x".into(), cores: 2, kernel: "6.1".into() },
            pacing: "burst".into(),
            trials: trials.map(|(server, cost)| trial(server, cost)).into(),
        };
        let text = scoreboard.markdown();
        let row = |server: &str| text.lines().find(|line| line.starts_with(&format!("| {server}"))).unwrap().to_owned();
        assert!(row("ours").contains("| 15.0 | 2.00 | 3.00 = 0.75 + 2.25 | 333 |"), "{text}");
        assert!(row("ours").ends_with("| 1.00× |") && row("other").ends_with("| 3.00× |"));
        assert!(text.contains("V, video: 1 → 100") && text.contains("3 trials of 5 s"));
    }

    #[test]
    fn entries_are_read() {
        assert_eq!("v=100".parse(), Ok(Entry { scenario: Scenario::V, size: 100 }));
        for wrong in ["V", "V=", "V=0", "Q=1"] {
            assert!(wrong.parse::<Entry>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_median_of_few_is_between_them() {
        assert_eq!((median(&[]), median(&[1.0]), median(&[1.0, 2.0])), (None, Some(1.0), Some(1.5)));
    }
}
