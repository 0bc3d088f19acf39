//! Charts: horizontal bars on a logarithmic axis, as SVG and as PNG.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Once;

use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, ShapeStyle, TextStyle, register_font};

use crate::args::LOCAL;
use crate::stats::short;

use super::Results;
use super::summary::{Row, Summary};

const WIDTH: i32 = 1000;
const LEFT: i32 = 200;
const RIGHT: i32 = 70;
const TOP: i32 = 76;
const BOTTOM: i32 = 36;
const BAR: i32 = 11;
const GAP: i32 = 9;

const BLACK: RGBColor = RGBColor(30, 30, 30);
const GREY: RGBColor = RGBColor(210, 210, 210);
const TARGET: RGBColor = RGBColor(200, 30, 30);
/// Colours that differ for the colour-blind as well (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
];

/// A chart: for each label a bar of each series.
struct Bars {
    file: &'static str,
    title: String,
    series: Vec<String>,
    rows: Vec<(String, Vec<Option<f64>>, Option<f64>)>,
    /// Where bars begin, when not at the left: 1 for ratios.
    origin: Option<f64>,
}

/// Writes all charts; returns the names of the SVG files.
pub fn write(results: &Results, summary: &Summary<'_>, directory: &Path) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for bars in charts(results, summary) {
        if bars.rows.is_empty() {
            continue;
        }
        let svg = directory.join(format!("{}.svg", bars.file));
        let png = directory.join(format!("{}.png", bars.file));
        bars.svg(&svg).map_err(|e| format!("{}: {e}", svg.display()))?;
        bars.png(&png).map_err(|e| format!("{}: {e}", png.display()))?;
        names.push(format!("{}.svg", bars.file));
    }
    Ok(names)
}

fn charts(results: &Results, summary: &Summary<'_>) -> Vec<Bars> {
    let names: Vec<String> = results.subjects.iter().map(|s| s.name.clone()).collect();
    let mut charts = Vec::new();
    if let Some(reference) = summary.reference {
        // The disk itself is beyond comparison, and would make all else short.
        let others: Vec<usize> =
            (0..names.len()).filter(|i| *i != reference && names.get(*i).is_none_or(|n| n != LOCAL)).collect();
        let mut series = Vec::new();
        for other in &others {
            let name = names.get(*other).cloned().unwrap_or_default();
            series.extend([format!("{name}: rate"), format!("{name}: CPU")]);
        }
        let values = |row: &Row<'_>| {
            others.iter().flat_map(|o| [row.rate_ratio(*o, reference), row.cpu_ratio(*o, reference)]).collect()
        };
        if !others.is_empty() {
            charts.push(Bars {
                file: "ratios",
                title: format!(
                    "Times better than {}{}",
                    results.reference,
                    if results.has_targets() { " (red: target)" } else { "" }
                ),
                series,
                rows: rows(summary, values, |row| {
                    row.phase.target.filter(|_| results.has_targets()).map(|t| t.rate.unwrap_or(t.cpu))
                }),
                origin: Some(1.0),
            });
        }
    }
    charts.push(Bars {
        file: "rates",
        title: "Rate: operations per second (MB/s for the streams), more is better".to_owned(),
        series: names.clone(),
        rows: rows(summary, |row| row.figures.iter().map(|f| f.rate).collect(), |_| None),
        origin: None,
    });
    charts.push(Bars {
        file: "cpu",
        title:
            "Processor time of daemons and load generator, us per operation (per MB for the streams), less is better"
                .to_owned(),
        series: names,
        rows: rows(summary, |row| row.figures.iter().map(|f| f.cpu_us).collect(), |_| None),
        origin: None,
    });
    charts
}

type BarRow = (String, Vec<Option<f64>>, Option<f64>);

fn rows(
    summary: &Summary<'_>,
    values: impl Fn(&Row<'_>) -> Vec<Option<f64>>,
    mark: impl Fn(&Row<'_>) -> Option<f64>,
) -> Vec<BarRow> {
    let rows = summary.rows.iter().map(|row| (row.phase.name.to_owned(), values(row), mark(row)));
    rows.filter(|(_, values, _)| values.iter().any(|v| v.is_some_and(|v| v > 0.0))).collect()
}

/// A logarithmic axis.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64>) -> Axis {
        let (low, high) = values
            .filter(|v| *v > 0.0 && v.is_finite())
            .fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        if high <= 0.0 {
            return Axis { low: 0.1, high: 10.0 };
        }
        // To the next 1, 2 or 5 outwards; not so tight that the shortest bar vanishes.
        Axis { low: step_below(low * 0.7), high: step_above(high * 1.05) }
    }

    fn place(&self, value: f64) -> i32 {
        let share = (value.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        LEFT + (share.clamp(0.0, 1.0) * f64::from(WIDTH - LEFT - RIGHT)).round() as i32
    }

    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        let mut power = 10_f64.powf(self.low.log10().floor());
        while power <= self.high * 1.0001 && ticks.len() < 60 {
            ticks.extend([1.0, 2.0, 5.0].map(|m| m * power));
            power *= 10.0;
        }
        ticks.retain(|t| *t >= self.low * 0.9999 && *t <= self.high * 1.0001);
        ticks
    }
}

fn step_below(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|m| m * power).find(|v| *v <= value * 1.0001).unwrap_or(power)
}

fn step_above(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|m| m * power).find(|v| *v >= value * 0.9999).unwrap_or(power * 10.0)
}

/// Ticks for people: `0.1`, `20`, `5k`, `2M`.
fn tick_name(value: f64) -> String {
    match value {
        v if v >= 0.999e6 => format!("{}M", (v / 1e5).round() / 10.0),
        v if v >= 999.0 => format!("{}k", (v / 1e2).round() / 10.0),
        v => format!("{}", (v * 1e4).round() / 1e4),
    }
}

type Drawn = Result<(), String>;

impl Bars {
    fn height(&self) -> i32 {
        let row = self.row_height();
        TOP + BOTTOM + row * i32::try_from(self.rows.len()).unwrap_or(0)
    }

    fn row_height(&self) -> i32 {
        BAR * i32::try_from(self.series.len().max(1)).unwrap_or(1) + GAP
    }

    fn size(&self) -> (u32, u32) {
        (WIDTH.unsigned_abs(), self.height().unsigned_abs())
    }

    fn svg(&self, path: &Path) -> Drawn {
        load_font();
        let mut text = String::new();
        {
            let area = SVGBackend::with_string(&mut text, self.size()).into_drawing_area();
            self.draw(&area)?;
            area.present().map_err(|e| e.to_string())?;
        }
        std::fs::write(path, text).map_err(|e| e.to_string())
    }

    fn png(&self, path: &Path) -> Drawn {
        load_font();
        let (width, height) = self.size();
        let mut pixels = vec![255_u8; width as usize * height as usize * 3];
        {
            let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
            self.draw(&area)?;
            area.present().map_err(|e| e.to_string())?;
        }
        let file = BufWriter::new(File::create(path).map_err(|e| e.to_string())?);
        let mut encoder = png::Encoder::new(file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
        writer.write_image_data(&pixels).map_err(|e| e.to_string())?;
        writer.finish().map_err(|e| e.to_string())
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn {
        let words = |e: &dyn std::fmt::Display| e.to_string();
        area.fill(&RGBColor(255, 255, 255)).map_err(|e| words(&e))?;
        let axis = Axis::of(
            self.rows
                .iter()
                .flat_map(|(_, values, mark)| values.iter().copied().chain([*mark]))
                .flatten()
                .chain(self.origin),
        );
        label(area, (12, 14), &self.title, 18, HPos::Left)?;
        let mut x = LEFT;
        for (name, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            block(area, (x, 42), (x + 12, 54), *colour)?;
            label(area, (x + 17, 48), name, 14, HPos::Left)?;
            x += 40 + 8 * i32::try_from(name.chars().count()).unwrap_or(0);
        }
        let bottom = self.height() - BOTTOM;
        for tick in axis.ticks() {
            let at = axis.place(tick);
            line(area, (at, TOP - 8), (at, bottom), if self.origin == Some(tick) { BLACK } else { GREY })?;
            label(area, (at, bottom + 12), &tick_name(tick), 12, HPos::Center)?;
        }
        let origin = self.origin.map_or(LEFT, |o| axis.place(o));
        let mut y = TOP;
        for (name, values, mark) in &self.rows {
            let bars = BAR * i32::try_from(values.len()).unwrap_or(0);
            label(area, (LEFT - 8, y + bars / 2), name, 14, HPos::Right)?;
            for ((index, value), colour) in (0..).zip(values).zip(COLOURS.iter().cycle()) {
                let Some(value) = value.filter(|v| *v > 0.0) else { continue };
                let (top, end) = (y + BAR * index, axis.place(value));
                block(area, (origin.min(end), top), (origin.max(end), top + BAR - 1), *colour)?;
                label(area, (origin.max(end) + 4, top + BAR / 2), &short(value), 12, HPos::Left)?;
            }
            if let Some(mark) = mark {
                let at = axis.place(*mark);
                block(area, (at - 1, y - 2), (at + 1, y + bars + 1), TARGET)?;
            }
            y += self.row_height();
        }
        Ok(())
    }
}

fn block<B: DrawingBackend>(area: &DrawingArea<B, Shift>, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Drawn {
    area.draw(&Rectangle::new([from, to], colour.filled())).map_err(|e| e.to_string())
}

fn line<B: DrawingBackend>(area: &DrawingArea<B, Shift>, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Drawn {
    area.draw(&PathElement::new(vec![from, to], ShapeStyle::from(colour))).map_err(|e| e.to_string())
}

/// `size` is even: glyphs of odd sizes are not all placed at the same height.
fn label<B: DrawingBackend>(area: &DrawingArea<B, Shift>, at: (i32, i32), text: &str, size: i32, side: HPos) -> Drawn {
    let style = TextStyle::from(("sans-serif", size).into_font()).pos(Pos::new(side, VPos::Center)).color(&BLACK);
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(|e| e.to_string())
}

/// The one font there is: no fonts need to be installed.
fn load_font() {
    static LOADED: Once = Once::new();
    LOADED.call_once(|| {
        // Only a broken font is refused; text is then missing, and drawing says so.
        let _ = register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes() {
        let axis = Axis::of([0.9, 12.0, 1.0].into_iter());
        assert_eq!((axis.low, axis.high), (0.5, 20.0));
        assert_eq!(axis.ticks(), [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!(axis.place(0.5), LEFT);
        assert_eq!(axis.place(20.0), WIDTH - RIGHT);
        assert!(axis.place(1.0) < axis.place(2.0));
        // Nothing to show, nothing that breaks.
        let empty = Axis::of(std::iter::empty());
        assert!(empty.low < empty.high && !empty.ticks().is_empty());
        let single = Axis::of([1.0].into_iter());
        assert!(single.low < 1.0 && single.high > 1.0);
    }

    #[test]
    fn names_of_ticks() {
        assert_eq!([0.1, 2.0, 500.0, 1000.0, 20_000.0, 5e6].map(tick_name), ["0.1", "2", "500", "1k", "20k", "5M"]);
    }
}
