//! Plots of a training and of an evaluation: learning curves, ROC and precision-recall curves, reliability. Each is a
//! [`Drawing`], with `svg()` and `png()`. Knows no file.
//!
//! Colors are Okabe and Ito's, which people with any color vision tell apart; dashes tell lines apart without color. Yellow is
//! left out, because it hardly shows on white.

mod axis;
mod drawing;
mod evaluation;
mod learning;
mod panel;
mod raster;
mod svg;

use ichd_plugin::label::{Label, N_LABELS};

use crate::picture::Rgb;
pub use drawing::{Drawing, Stroke};
pub use evaluation::{precision_recall, reliability, reliability_of, roc};
pub use learning::learning_curves;

/// Size of every plot in pixels.
const SIZE: (u32, u32) = (900, 600);

const BLACK: Rgb = [0x00, 0x00, 0x00];
const ORANGE: Rgb = [0xE6, 0x9F, 0x00];
const SKY_BLUE: Rgb = [0x56, 0xB4, 0xE9];
const GREEN: Rgb = [0x00, 0x9E, 0x73];
const BLUE: Rgb = [0x00, 0x72, 0xB2];
const VERMILION: Rgb = [0xD5, 0x5E, 0x00];

const DASHED: &[f32] = &[8.0, 4.0];
const DOTTED: &[f32] = &[2.0, 3.0];
const LONG: &[f32] = &[14.0, 4.0];
const MIXED: &[f32] = &[8.0, 3.0, 2.0, 3.0];

/// Looks in label order; also of the first six of anything else.
const LOOKS: [Stroke; N_LABELS] = [
    Stroke { color: BLACK, width: 2.5, dash: &[] },
    Stroke { color: ORANGE, width: 2.0, dash: &[] },
    Stroke { color: VERMILION, width: 2.0, dash: DASHED },
    Stroke { color: BLUE, width: 2.0, dash: &[] },
    Stroke { color: GREEN, width: 2.0, dash: MIXED },
    Stroke { color: SKY_BLUE, width: 2.0, dash: LONG },
];

/// A label's line.
fn look(label: Label) -> Stroke {
    LOOKS[label as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Predictions;
    use crate::measure::epoch::Epoch;

    fn predictions(n: u32) -> Predictions {
        let logits: Vec<[f32; 6]> = (0..n).map(|row| [row as f32 / 3.0 - 4.0; 6]).collect();
        let targets: Vec<[bool; 6]> =
            (0..n).map(|row| [row % 3 == 0, row % 3 == 1, row > 9, false, true, false]).collect();
        Predictions::from_logits(&logits, &targets, &(0..n).collect::<Vec<u32>>(), None).unwrap()
    }

    fn epochs() -> Vec<Epoch> {
        let epoch = |epoch: u32| Epoch {
            epoch,
            learning_rate: 1e-4,
            train_loss: if epoch == 2 { f64::NAN } else { 1.0 / f64::from(epoch) },
            validation_loss: (epoch > 1).then(|| 2.0 / f64::from(epoch)),
            auroc: [Some(1.0), None, Some(0.5), None, None, None],
            ..Epoch::default()
        };
        (1..=3).map(epoch).collect()
    }

    /// With and without anything to show.
    fn all() -> Vec<Drawing> {
        let title = "<b> & \"plots\"";
        let mut drawings = vec![learning_curves(title, &epochs()), learning_curves(title, &[])];
        for n in [0, 1, 30] {
            let predictions = predictions(n);
            drawings.push(roc(title, &predictions, None));
            drawings.push(roc(title, &predictions, Some(&[None; 6])));
            drawings.push(precision_recall(title, &predictions));
            drawings.push(reliability(title, &predictions));
        }
        drawings.push(reliability_of(title, &[]));
        drawings
    }

    #[test]
    fn every_plot_has_its_size_as_png_and_svg() {
        for drawing in all() {
            let bytes = drawing.png().unwrap();
            let reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
            assert_eq!((reader.info().width, reader.info().height), SIZE);
            let svg = drawing.svg();
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
            assert!(svg.contains("<title>&lt;b&gt; &amp; &quot;plots&quot;</title>") && !svg.contains("<b>"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn nothing_is_drawn_outside_the_paper() {
        for drawing in all() {
            for shape in &drawing.shapes {
                let (points, reach): (Vec<[f32; 2]>, [f32; 2]) = match shape {
                    drawing::Shape::Rect { at, size, .. } => (vec![*at], *size),
                    drawing::Shape::Line { points, .. } => (points.clone(), [0.0; 2]),
                    drawing::Shape::Dot { at, radius, .. } => (vec![*at], [*radius; 2]),
                    drawing::Shape::Text { at, text, style } => {
                        let length = text.chars().count() as f32 * raster::advance(style.size);
                        let part = match style.anchor {
                            drawing::Anchor::Start => 1.0,
                            drawing::Anchor::Middle => 0.5,
                            drawing::Anchor::End => 0.0,
                        };
                        (vec![*at], if style.turned { [8.0, 0.0] } else { [length * part, 8.0] })
                    }
                };
                let inside = |[x, y]: &[f32; 2]| {
                    (0.0..=SIZE.0 as f32 - reach[0]).contains(x) && (0.0..=SIZE.1 as f32 - reach[1]).contains(y)
                };
                assert!(points.iter().all(inside), "{shape:?}");
            }
        }
    }

    #[test]
    fn legends_carry_the_numbers() {
        let svg = roc("roc", &predictions(30), None).svg();
        assert!(svg.contains(">any               0.") && svg.contains(">one class only<"));
        let svg = learning_curves("curves", &epochs()).svg();
        assert!(svg.contains("least validation loss: 0.6667 in epoch 3") && svg.contains(">any               1.0000<"));
    }

    #[test]
    fn a_small_drawing_as_svg() {
        let mut drawing = Drawing::new(20, 10, "a & b");
        drawing.rect([1.0, 2.0], [3.5, 4.0], [0, 0, 0]);
        drawing.line(vec![[0.5, 0.5], [9.0, -0.001]], Stroke { color: ORANGE, width: 2.0, dash: DOTTED });
        drawing.dot([5.0, 5.0], 1.5, BLUE);
        let style = drawing::TextStyle::plain(drawing::INK).anchored(drawing::Anchor::End);
        drawing.text([19.0, 5.0], "x < 1", drawing::TextStyle { turned: true, bold: true, ..style });
        let expected = "\
<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"20\" height=\"10\" viewBox=\"0 0 20 10\" role=\"img\" \
font-family=\"Noto Sans Mono,DejaVu Sans Mono,Menlo,Consolas,monospace\">
<title>a &amp; b</title>
<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>
<rect x=\"1\" y=\"2\" width=\"3.5\" height=\"4\" fill=\"#000000\"/>
<polyline points=\"0.5,0.5 9,0\" fill=\"none\" stroke=\"#e69f00\" stroke-width=\"2\" stroke-linejoin=\"round\" \
stroke-dasharray=\"2 3\"/>
<circle cx=\"5\" cy=\"5\" r=\"1.5\" fill=\"#0072b2\"/>
<text x=\"19\" y=\"5\" dy=\"0.35em\" font-size=\"13\" text-anchor=\"end\" textLength=\"35\" lengthAdjust=\"spacingAndGlyphs\" \
xml:space=\"preserve\" fill=\"#22262b\" font-weight=\"bold\" transform=\"rotate(-90 19 5)\">x &lt; 1</text>
</svg>
";
        assert_eq!(drawing.svg(), expected);
    }
}
