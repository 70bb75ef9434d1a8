//! Draws how many proxies are back over time.

use std::path::Path;

use plotters::prelude::*;

/// One line of the picture: seconds since the process was started, and how many were listed then.
pub struct Curve {
    pub name: &'static str,
    pub points: Vec<(f64, usize)>,
}

const COLOURS: [RGBColor; 3] =
    [RGBColor(0x0b, 0x6e, 0x4f), RGBColor(0xd0, 0x73, 0x1c), RGBColor(0x8a, 0x1c, 0x3b)];

/// Time is on a logarithmic axis: the lines are orders of magnitude apart.
pub fn draw(file: &Path, title: &str, total: usize, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    let end = curves.iter().flat_map(|curve| &curve.points).map(|(at, _)| *at).fold(1.0, f64::max);
    let area = SVGBackend::new(file, (900, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d((0.05..end * 1.1).log_scale(), 0..total + total / 20)?;
    chart
        .configure_mesh()
        .x_desc("seconds since the server was started (logarithmic)")
        .y_desc("proxies back")
        .x_label_formatter(&|seconds| format!("{seconds}"))
        .light_line_style(WHITE)
        .draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS) {
        let line = curve.points.iter().map(|(at, count)| (at.max(0.05), *count));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(3)))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK)
        .background_style(WHITE.mix(0.9))
        .draw()?;
    area.present()?;
    Ok(())
}
