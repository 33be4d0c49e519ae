//! The drawing of a chart's panels, one below the other.

use std::error::Error;

use jiff::Timestamp;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Axis, Panel, Point, Series};
use crate::output::bench::number;
use crate::output::page::printable;
use crate::output::units;

const WIDTH: u32 = 960;
const HEAD: u32 = 64;
const HEIGHT: u32 = 250;
const LEGEND: u32 = 230;
/// Characters of a name that fit the legend, and the head.
const SHORT: usize = 30;
const LONG: usize = 100;

const INK: RGBColor = RGBColor(34, 34, 34);
const FAINT: RGBColor = RGBColor(95, 95, 95);
const LINES: RGBColor = RGBColor(222, 222, 222);
/// Each has a contrast of at least 4 to white, and they differ for colour-blind eyes too.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 103, 166),
    RGBColor(190, 75, 0),
    RGBColor(0, 118, 88),
    RGBColor(155, 60, 130),
    RGBColor(90, 90, 90),
    RGBColor(128, 98, 0),
    RGBColor(75, 63, 146),
];

type Drawn = Result<(), Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The whole drawing.
pub(super) fn sheet(title: &str, machine: Option<&str>, panels: &[Panel]) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    {
        let height = HEAD + HEIGHT * u32::try_from(panels.len())?;
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let (head, body) = root.split_vertically(HEAD);
        head.draw_text(&shown(title, LONG), &font(18, INK), (20, 14))?;
        if let Some(machine) = machine {
            head.draw_text(&shown(machine, LONG), &font(13, FAINT), (20, 40))?;
        }
        for (panel, area) in panels.iter().zip(body.split_evenly((panels.len().max(1), 1))) {
            let (plot, legend) = area.split_horizontally(WIDTH - LEGEND);
            draw(panel, &plot)?;
            list(&panel.series, &legend)?;
        }
        root.present()?;
    }
    Ok(text)
}

fn draw(panel: &Panel, area: &Area<'_>) -> Drawn {
    let points = || panel.series.iter().flat_map(|series| &series.points).map(finite);
    let top = points().map(|point| point.mean + point.deviation).fold(0.0, f64::max);
    // Room for the numbers above the bars.
    let top = if top > 0.0 { top * 1.18 } else { 1.0 };
    let (first, last) = match &panel.axis {
        Axis::Tests(tests) => (0.0, tests.len().max(1) as f64),
        Axis::Depth | Axis::Time => {
            let least = points().map(|point| point.at).fold(f64::INFINITY, f64::min);
            let most = points().map(|point| point.at).fold(f64::NEG_INFINITY, f64::max);
            let margin = ((most - least) * 0.04).max(0.5);
            (least - margin, most + margin)
        }
    };
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .caption(format!("{} ({})", panel.topic, shown(&panel.unit, SHORT)), font(15, INK))
        .x_label_area_size(30)
        .y_label_area_size(76)
        .build_cartesian_2d(first..last, 0.0..top)?;
    let span = last - first;
    let along = |at: &f64| match panel.axis {
        Axis::Time => time(*at, span),
        Axis::Depth if *at < 0.0 => String::new(),
        _ => format!("{at:.0}"),
    };
    let up = |value: &f64| amount(*value, &panel.unit);
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(LINES)
        .axis_style(FAINT)
        .label_style(font(13, INK))
        .y_labels(5)
        .y_label_formatter(&up)
        .x_label_formatter(&along)
        .x_labels(if matches!(panel.axis, Axis::Tests(_)) { 0 } else { 6 });
    mesh.draw()?;

    let place = Pos::new(HPos::Center, VPos::Top);
    if let Axis::Tests(tests) = &panel.axis {
        for (at, test) in tests.iter().enumerate() {
            let label = Text::new(shown(test, SHORT), (0, 6), font(13, INK).pos(place));
            chart.draw_series([EmptyElement::at((at as f64 + 0.5, 0.0)) + label])?;
        }
        let width = 0.7 / panel.series.len().max(1) as f64;
        for (slot, (series, colour)) in coloured(&panel.series).enumerate() {
            for point in series.points.iter().map(finite) {
                let left = point.at + 0.15 + width * slot as f64;
                let (right, middle) = (left + width * 0.94, left + width * 0.47);
                chart.draw_series([Rectangle::new([(left, 0.0), (right, point.mean)], colour.filled())])?;
                chart.draw_series(spread(Point { at: middle, ..point }, INK))?;
                let above = Pos::new(HPos::Center, VPos::Bottom);
                let label = Text::new(up(&point.mean), (0, -3), font(12, INK).pos(above));
                let end = (middle, point.mean + point.deviation);
                chart.draw_series([EmptyElement::at(end) + label])?;
            }
        }
        return Ok(());
    }
    for (series, colour) in coloured(&panel.series) {
        let line = series.points.iter().map(finite);
        chart
            .draw_series(LineSeries::new(line.clone().map(|it| (it.at, it.mean)), colour.stroke_width(2)))?;
        for point in line {
            chart.draw_series([Circle::new((point.at, point.mean), 4, colour.filled())])?;
            chart.draw_series(spread(point, colour))?;
        }
    }
    Ok(())
}

/// One standard deviation up and down; nothing where there is none.
fn spread(point: Point, colour: RGBColor) -> impl Iterator<Item = PathElement<(f64, f64)>> {
    let ends =
        [(point.at, (point.mean - point.deviation).max(0.0)), (point.at, point.mean + point.deviation)];
    (point.deviation > 0.0).then(|| PathElement::new(ends, colour.stroke_width(2))).into_iter()
}

/// What the colours mean.
fn list(series: &[Series], area: &Area<'_>) -> Drawn {
    let room = (HEIGHT as usize - 60) / 20;
    for (row, (series, colour)) in coloured(series).take(room).enumerate() {
        let y = 40 + 20 * i32::try_from(row)?;
        area.draw(&Rectangle::new([(8, y), (20, y + 12)], colour.filled()))?;
        area.draw_text(&shown(&series.name, SHORT), &font(13, INK), (28, y))?;
    }
    if let Some(more) = series.len().checked_sub(room + 1) {
        let y = 40 + 20 * i32::try_from(room)?;
        area.draw_text(&format!("and {} more", more + 1), &font(13, FAINT), (28, y))?;
    }
    Ok(())
}

fn coloured(series: &[Series]) -> impl Iterator<Item = (&Series, RGBColor)> {
    series.iter().zip(COLOURS.into_iter().cycle())
}

/// A point that can be drawn: files of results may say anything.
fn finite(point: &Point) -> Point {
    // Sums and the room above stay finite too.
    let bounded = |value: f64| if value.is_nan() { 0.0 } else { value.clamp(0.0, f64::MAX / 16.0) };
    Point { at: point.at, mean: bounded(point.mean), deviation: bounded(point.deviation) }
}

fn font(size: i32, colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour)
}

/// A text as an SVG file can hold it: the library escapes markup, but XML has no way to write control
/// characters and the two that Unicode reserves. Of a longer one the end is shown: that of a path tells more.
fn shown(text: &str, longest: usize) -> String {
    let text: String = printable(text).chars().filter(|c| !matches!(c, '\u{fffe}' | '\u{ffff}')).collect();
    match text.chars().count().checked_sub(longest) {
        Some(over) if over > 0 => {
            text.chars().skip(over + 1).fold("…".to_owned(), |end, c| end + c.encode_utf8(&mut [0; 4]))
        }
        _ => text,
    }
}

fn amount(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => units::bytes(value as u64),
        _ if value >= 1e9 => format!("{value:.1e}"),
        _ if value == 0.0 => "0".to_owned(),
        _ => number(value),
    }
}

/// A moment, as exactly as the labels beside it need.
fn time(seconds: f64, span: f64) -> String {
    let form = match span {
        _ if span < 600.0 => "%H:%M:%S",
        _ if span < 172_800.0 => "%d %b %H:%M",
        _ => "%Y-%m-%d",
    };
    Timestamp::from_millisecond((seconds * 1000.0) as i64)
        .map_or_else(|_| String::new(), |moment| moment.strftime(form).to_string())
}
