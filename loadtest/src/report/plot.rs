//! Plots as inline SVG: lines over one axis, nothing else.

use std::fmt::Write;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 40.0;
/// Distinguishable by readers who see no colours as well: lines have different dashes, too.
const COLOURS: [&str; 4] = ["#0b61a4", "#c4461a", "#2e7d32", "#6a1b9a"];
const DASHES: [&str; 4] = ["", "6 3", "2 3", "8 3 2 3"];

pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// `x` and `y` name the axes; both start at zero.
pub fn svg(title: &str, x: &str, y: &str, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let right = step_up(all().map(|(x, _)| *x).fold(0.0, f64::max));
    let top = step_up(all().map(|(_, y)| *y).fold(0.0, f64::max));
    let place = |(at, value): (f64, f64)| {
        let across = LEFT + at / right * (WIDTH - LEFT - RIGHT);
        let down = HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
        (across, down)
    };
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\"><text x=\"{LEFT}\" y=\"16\" class=\"title\">{0}</text>",
        escape(title)
    );
    for part in 0..=4 {
        let share = f64::from(part) / 4.0;
        let (across, _) = place((share * right, 0.0));
        let (_, down) = place((0.0, share * top));
        let (end, base) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {down:.1}H{end}M{across:.1} {TOP}V{base}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            LEFT - 6.0,
            down + 4.0,
            number(share * top),
            base + 16.0,
            number(share * right)
        );
    }
    let _ = write!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text><text x=\"{:.1}\" y=\"16\" text-anchor=\"end\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
        escape(x),
        WIDTH - RIGHT,
        escape(y)
    );
    for (index, line) in lines.iter().enumerate() {
        let (colour, dash) = (COLOURS[index % COLOURS.len()], DASHES[index % DASHES.len()]);
        let points: Vec<String> = line
            .points
            .iter()
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .map(|point| place(*point))
            .map(|(across, down)| format!("{across:.1},{down:.1}"))
            .collect();
        let _ = write!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\" points=\"{}\"/>",
            points.join(" ")
        );
        for point in &points {
            if let Some((across, down)) = point.split_once(',') {
                let _ = write!(out, "<circle cx=\"{across}\" cy=\"{down}\" r=\"2.5\" fill=\"{colour}\"/>");
            }
        }
        let (across, down) = (LEFT + 8.0, TOP + 14.0 + 14.0 * index as f64);
        let _ = write!(
            out,
            "<path d=\"M{across} {:.1}h22\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>\
             <text x=\"{:.1}\" y=\"{down:.1}\">{}</text>",
            down - 4.0,
            across + 28.0,
            escape(&line.name)
        );
    }
    out + "</svg>"
}

/// The next round number: one, two or five of a power of ten. One for nothing.
fn step_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value * 0.999).unwrap_or(10.0 * power)
}

fn number(value: f64) -> String {
    let text = if value >= 100.0 || value == value.trunc() { format!("{value:.0}") } else { format!("{value:.3}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, end) in [(0.0, 1.0), (0.7, 1.0), (1.0, 1.0), (1.3, 2.0), (2.2, 2.5), (37.0, 50.0), (960.0, 1000.0)]
        {
            assert!((step_up(value) - end).abs() < 1e-9, "{value}: {}", step_up(value));
        }
        assert_eq!([number(250.0), number(0.125), number(2.5), number(0.0)], ["250", "0.125", "2.5", "0"]);
    }

    #[test]
    fn a_plot_stays_in_its_frame() {
        let line = Line { name: "a<b".into(), points: vec![(0.0, 0.0), (100.0, 7.0), (50.0, f64::NAN)] };
        let text = svg("t", "x", "y", &[line]);
        assert!(text.contains(&format!("{:.1},{:.1}", LEFT, HEIGHT - BOTTOM)));
        assert!(text.contains("a&lt;b") && !text.contains("NaN"));
        assert_eq!(text.matches("<circle").count(), 2);
    }
}
