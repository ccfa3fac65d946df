//! A run as one page that needs nothing else: no script, no font, no picture from anywhere.

use std::fmt::Write;

use super::plot::{Line, escape, svg};
use super::{Report, Stage, table};

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1b1b1b; background: #fff }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th small { font-weight: normal; color: #555 }
.scroll { overflow-x: auto }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem; margin: 1.5rem 0 }
svg { width: 100%; height: auto; border: 1px solid #ddd; border-radius: 4px }
svg text { font: 11px system-ui, sans-serif; fill: currentColor }
svg .title { font-weight: 600; font-size: 12px }
svg .grid { stroke: #e4e4e4; fill: none }
.warning { color: #9c2a00 }
@media (prefers-color-scheme: dark) {
  body { color: #e8e8e8; background: #16181c }
  th, td, svg { border-color: #3a3d44 }
  th small { color: #aaa }
  svg .grid { stroke: #2c2f36 }
  .warning { color: #ff9d76 }
}";

pub fn render(report: &Report) -> String {
    let title = format!("{}: {:?}, {}", report.server, report.scenario, report.scenario.title());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0}</title><style>{STYLE}</style></head><body><h1>{0}</h1><p>{1}</p>",
        escape(&title),
        escape(&table::title(report))
    );
    if let Some(knee) = report.knee {
        let _ = write!(page, "<p>The largest size that the server bore: <strong>{knee}</strong>.</p>");
    }
    page += &stages_table(&report.stages);
    let _ = write!(page, "<div class=\"plots\">{}</div>", plots(&report.stages).concat());
    page += "</body></html>\n";
    page
}

fn stages_table(stages: &[Stage]) -> String {
    let (head, rows) = table::cells(stages);
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr>");
    for [above, below] in &head {
        let _ = write!(out, "<th>{}<br><small>{}</small></th>", escape(above), escape(below));
    }
    out += "</tr></thead><tbody>";
    for row in &rows {
        let cells: String = row.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        let _ = write!(out, "<tr>{cells}</tr>");
    }
    out += "</tbody></table></div>";
    let remarks: String = stages
        .iter()
        .flat_map(|stage| table::remarks(stage).into_iter().map(|remark| (stage.size, remark)))
        .map(|(size, remark)| {
            let class = if remark.starts_with("warning") { " class=\"warning\"" } else { "" };
            format!("<li{class}>size {size}: {}</li>", escape(&remark))
        })
        .collect();
    if !remarks.is_empty() {
        let _ = write!(out, "<ul>{remarks}</ul>");
    }
    out
}

/// A percentile by its nines: what is late is rare, and on a plain axis it would have no room.
fn nines(percentile: f64) -> f64 {
    const ALL: f64 = 4.0;
    (-(1.0 - percentile / 100.0).log10()).clamp(0.0, ALL)
}

fn plots(stages: &[Stage]) -> Vec<String> {
    let mut ordered: Vec<&Stage> = stages.iter().collect();
    ordered.sort_by_key(|stage| stage.size);
    let over_size = |name: &str, value: &dyn Fn(&Stage) -> Option<f64>| Line {
        name: name.into(),
        points: ordered.iter().filter_map(|stage| Some((stage.size as f64, value(stage)?))).collect(),
    };
    let known = |count: u64, value: f64| (count > 0).then_some(value);
    let delays: Vec<Line> = stages
        .iter()
        .map(|stage| Line {
            name: format!("size {}", stage.size),
            points: stage.delay_curve.iter().map(|(percentile, ms)| (nines(*percentile), *ms)).collect(),
        })
        .collect();
    let mut plots = vec![svg(
        "Forwarding delay",
        "share of packets: 1 = 90 %, 2 = 99 %, 3 = 99.9 %, 4 = all",
        "ms",
        // More lines than that hide each other: the last stages are the largest.
        &delays[delays.len().saturating_sub(4)..],
    )];
    if stages.len() > 1 {
        plots.extend([
            svg(
                "CPU time per forwarded packet",
                "size",
                "µs",
                &[
                    over_size("user and system", &|stage| stage.cpu.map(|cpu| cpu.per_packet())),
                    over_size("user", &|stage| stage.cpu.map(|cpu| cpu.user_per_packet)),
                ],
            ),
            svg(
                "Forwarding delay by size",
                "size",
                "ms",
                &[
                    over_size("p99", &|stage| known(stage.delay.count, stage.delay.p99)),
                    over_size("p50", &|stage| known(stage.delay.count, stage.delay.p50)),
                ],
            ),
            svg(
                "Loss",
                "size",
                "%",
                &[
                    over_size("before repair", &|stage| Some(stage.loss)),
                    over_size("after repair", &|stage| Some(stage.loss_after_repair)),
                ],
            ),
            svg(
                "Memory of the server",
                "size",
                "MiB",
                &[over_size("RSS", &|stage| stage.cpu.map(|cpu| cpu.rss as f64 / f64::from(1 << 20)))],
            ),
            svg(
                "Time to join",
                "size",
                "ms",
                &[
                    over_size("first frame p95", &|stage| known(stage.first_frame.count, stage.first_frame.p95)),
                    over_size("connected p95", &|stage| known(stage.join.count, stage.join.p95)),
                ],
            ),
        ]);
    }
    plots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::tests::report;

    #[test]
    fn rare_delays_have_room() {
        let places = [0.0, 90.0, 99.0, 99.9, 100.0].map(nines);
        for (place, expected) in places.into_iter().zip([0.0, 1.0, 2.0, 3.0, 4.0]) {
            assert!((place - expected).abs() < 1e-9, "{place}");
        }
    }

    #[test]
    fn the_page_stands_alone() {
        let mut two = report(2.0, &[50, 100]);
        two.stages[1].forged = 1;
        two.knee = Some(100);
        let page = render(&two);
        for outside in ["http:", "https:", "<script", "<link", "src=", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("<svg").count(), 6);
        assert!(page.contains("a &lt;fast&gt; one") && page.contains("class=\"warning\""));
        assert!(page.contains("<strong>100</strong>"));
        assert_eq!(render(&report(2.0, &[50])).matches("<svg").count(), 1);
    }
}
