//! Where plotters' drawing becomes SVG text: groups with titles, classes, relative integer paths.

use std::convert::Infallible;
use std::fmt::{Display, Write as _};

use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind, FontStyle,
};

use super::ink::{Ink, Theme};
use crate::text;

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

/// A document in the making.
pub(super) struct Svg<'a> {
    out: &'a mut String,
    size: (u32, u32),
    theme: Theme,
}

/// How a shape is painted.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct Paint {
    pub(super) fill: Option<Fill>,
    pub(super) stroke: Option<Stroke>,
    /// Percent; 100 when it is `None`.
    pub(super) opacity: Option<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fill {
    Ink(Ink),
    /// The id of a pattern in the document's definitions.
    Pattern(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stroke {
    pub(super) ink: Ink,
    pub(super) width: u32,
    /// A stroke-dasharray; empty for a solid line.
    pub(super) dashes: &'static str,
}

impl Paint {
    pub(super) fn fill(ink: Ink) -> Self {
        Self {
            fill: Some(Fill::Ink(ink)),
            ..Self::default()
        }
    }

    pub(super) fn pattern(id: &str) -> Self {
        Self {
            fill: Some(Fill::Pattern(id.to_owned())),
            ..Self::default()
        }
    }

    pub(super) fn line(ink: Ink, width: u32, dashes: &'static str) -> Self {
        Self::default().outlined(ink, width, dashes)
    }

    pub(super) fn outlined(self, ink: Ink, width: u32, dashes: &'static str) -> Self {
        Self {
            stroke: Some(Stroke { ink, width, dashes }),
            ..self
        }
    }

    pub(super) fn faint(self, percent: u8) -> Self {
        Self {
            opacity: Some(percent),
            ..self
        }
    }
}

/// How a text is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) ink: Ink,
    pub(super) size: u32,
    pub(super) bold: bool,
    pub(super) anchor: Anchor,
    /// Whether the background shines around the letters, for text on top of shapes.
    pub(super) halo: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl<'a> Svg<'a> {
    pub(super) fn new(out: &'a mut String, size: (u32, u32), theme: Theme) -> Self {
        Self { out, size, theme }
    }

    fn put(&mut self, part: impl Display) {
        // A write into a string cannot fail.
        let _infallible = write!(self.out, "{part}");
    }

    /// Adds text that is SVG already.
    pub(super) fn raw(&mut self, svg: &str) {
        self.out.push_str(svg);
    }

    /// Opens a group; its title is what a viewer shows on hovering. Close it with [`Svg::close`].
    pub(super) fn open(&mut self, title: Option<&str>) {
        self.out.push_str("<g>");
        if let Some(title) = title {
            self.put(format_args!("<title>{}</title>", text::escape(title)));
        }
    }

    pub(super) fn close(&mut self) {
        self.out.push_str("</g>\n");
    }

    /// One path out of several parts.
    pub(super) fn path(&mut self, parts: &[&[BackendCoord]], closed: bool, paint: &Paint) {
        let mut data = String::new();
        let mut pen = (0, 0);
        for part in parts {
            pen = push_part(&mut data, part, closed, pen);
        }
        if data.is_empty() {
            return;
        }
        self.out.push_str("<path");
        self.paint(paint);
        self.put(format_args!(" d=\"{data}\"/>\n"));
    }

    fn paint(&mut self, paint: &Paint) {
        let theme = self.theme;
        let mut classes = Vec::new();
        if let Some(Fill::Ink(ink)) = paint.fill {
            classes.push(format!("f-{}", ink.code()));
        }
        if let Some(stroke) = paint.stroke {
            classes.push(format!("s-{}", stroke.ink.code()));
        }
        if !classes.is_empty() {
            self.put(format_args!(" class=\"{}\"", classes.join(" ")));
        }
        match &paint.fill {
            Some(Fill::Ink(ink)) => self.put(format_args!(" fill=\"{}\"", ink.fallback(theme))),
            Some(Fill::Pattern(id)) => self.put(format_args!(" fill=\"url(#{id})\"")),
            None => self.raw(" fill=\"none\""),
        }
        if let Some(stroke) = paint.stroke {
            self.put(format_args!(" stroke=\"{}\"", stroke.ink.fallback(theme)));
            if stroke.width != 1 {
                self.put(format_args!(" stroke-width=\"{}\"", stroke.width));
            }
            if !stroke.dashes.is_empty() {
                self.put(format_args!(" stroke-dasharray=\"{}\"", stroke.dashes));
            }
        }
        if let Some(percent) = paint.opacity {
            self.put(format_args!(" opacity=\"0.{percent:02}\""));
        }
    }

    /// A line of text with its baseline at `y`.
    pub(super) fn text(&mut self, (x, y): BackendCoord, words: &str, setting: Setting) {
        let ink = setting.ink;
        self.put(format_args!(
            "<text x=\"{x}\" y=\"{y}\" class=\"f-{}{}\" fill=\"{}\" font-size=\"{}\"",
            ink.code(),
            if setting.halo { " halo" } else { "" },
            ink.fallback(self.theme),
            setting.size
        ));
        if setting.halo {
            self.put(format_args!(
                " paint-order=\"stroke\" stroke=\"{}\" stroke-width=\"4\" stroke-linejoin=\"round\"",
                Ink::Background.fallback(self.theme)
            ));
        }
        if setting.bold {
            self.raw(" font-weight=\"600\"");
        }
        self.raw(match setting.anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        });
        self.put(format_args!(">{}</text>\n", text::escape(words)));
    }
}

/// Appends one part as `m`, then `h`, `v` and `l` with differences; straight runs become one step. Answers where the
/// pen is, which for a closed part is its start.
fn push_part(data: &mut String, part: &[BackendCoord], closed: bool, pen: BackendCoord) -> BackendCoord {
    let Some(start) = part.first().copied() else {
        return pen;
    };
    let mut steps: Vec<(i32, i32)> = Vec::with_capacity(part.len());
    let mut last = start;
    for point in &part[1..] {
        let step = (point.0 - last.0, point.1 - last.1);
        last = *point;
        match steps.last_mut() {
            _ if step == (0, 0) => {}
            Some(before) if same_way(*before, step) => *before = (before.0 + step.0, before.1 + step.1),
            _ => steps.push(step),
        }
    }
    // A write into a string cannot fail.
    let _infallible = write!(data, "m{} {}", start.0 - pen.0, start.1 - pen.1);
    if steps.is_empty() {
        // A single point is still something to see.
        data.push_str("h1");
        last = (start.0 + 1, start.1);
    }
    for step in steps {
        let _infallible = match step {
            (dx, 0) => write!(data, "h{dx}"),
            (0, dy) => write!(data, "v{dy}"),
            (dx, dy) if dy < 0 => write!(data, "l{dx}{dy}"),
            (dx, dy) => write!(data, "l{dx} {dy}"),
        };
    }
    if closed {
        data.push('z');
        return start;
    }
    last
}

/// Whether two steps are horizontal or vertical and point the same way.
fn same_way(a: (i32, i32), b: (i32, i32)) -> bool {
    (a.1 == 0 && b.1 == 0 && a.0.signum() == b.0.signum())
        || (a.0 == 0 && b.0 == 0 && a.1.signum() == b.1.signum())
}

/// The paint of one of plotters' own elements.
fn paint_of(color: BackendColor, width: u32, fill: bool) -> Option<Paint> {
    if color.alpha <= 0.0 {
        return None;
    }
    let ink = Ink::of_rgb(color.rgb).unwrap_or(Ink::Text);
    Some(if fill {
        Paint::fill(ink)
    } else {
        Paint::line(ink, width, "")
    })
}

impl DrawingBackend for Svg<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Drawn {
        self.draw_rect((x, y), (x + 1, y + 1), &color, true)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Drawn {
        self.draw_path([from, to], style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        (left, top): BackendCoord,
        (right, bottom): BackendCoord,
        style: &S,
        fill: bool,
    ) -> Drawn {
        if let Some(paint) = paint_of(style.color(), style.stroke_width(), fill) {
            let corners = [(left, top), (right, top), (right, bottom), (left, bottom)];
            self.path(&[&corners], true, &paint);
        }
        Ok(())
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Drawn {
        if let Some(paint) = paint_of(style.color(), style.stroke_width(), false) {
            let points: Vec<BackendCoord> = path.into_iter().collect();
            self.path(&[&points], false, &paint);
        }
        Ok(())
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        (x, y): BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Drawn {
        if let Some(paint) = paint_of(style.color(), style.stroke_width(), fill) {
            self.put(format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\""));
            self.paint(&paint);
            self.raw("/>\n");
        }
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        vert: I,
        style: &S,
    ) -> Drawn {
        if let Some(paint) = paint_of(style.color(), 1, true) {
            let points: Vec<BackendCoord> = vert.into_iter().collect();
            self.path(&[&points], true, &paint);
        }
        Ok(())
    }

    fn draw_text<T: BackendTextStyle>(&mut self, words: &str, style: &T, (x, y): BackendCoord) -> Drawn {
        let size = size_of(style);
        let anchor = style.anchor();
        // From the box plotters thinks in to the baseline that SVG thinks in: letters reach about 0.74 em above it.
        let rise = i32::try_from(size * 74 / 100).unwrap_or(0);
        let y = match anchor.v_pos {
            VPos::Top => y + rise,
            VPos::Center => y + rise / 2,
            VPos::Bottom => y,
        };
        let setting = Setting {
            ink: Ink::of_rgb(style.color().rgb).unwrap_or(Ink::Text),
            size,
            bold: matches!(style.style(), FontStyle::Bold),
            anchor: match anchor.h_pos {
                HPos::Left => Anchor::Start,
                HPos::Center => Anchor::Middle,
                HPos::Right => Anchor::End,
            },
            halo: false,
        };
        self.text((x, y), words, setting);
        Ok(())
    }

    fn estimate_text_size<T: BackendTextStyle>(
        &self,
        words: &str,
        style: &T,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let size = size_of(style);
        let width = text::width(words, size, matches!(style.style(), FontStyle::Bold));
        Ok((u32::try_from(width).unwrap_or(0), size))
    }

    fn blit_bitmap(&mut self, _: BackendCoord, _: (u32, u32), _: &[u8]) -> Drawn {
        // Timelines hold no bitmaps; plotters' default would paint one rectangle per pixel.
        Ok(())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "font sizes are between 1 and 100"
)]
fn size_of(style: &impl BackendTextStyle) -> u32 {
    style.size().clamp(1.0, 100.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(points: &[BackendCoord], closed: bool) -> String {
        let mut out = String::new();
        push_part(&mut out, points, closed, (0, 0));
        out
    }

    #[test]
    fn paths_are_relative_and_short() {
        assert_eq!(data(&[], true), "");
        assert_eq!(data(&[(3, 4)], false), "m3 4h1");
        assert_eq!(
            data(
                &[(0, 9), (1, 9), (2, 9), (3, 5), (3, 2), (3, 6), (9, 7), (9, 9)],
                true
            ),
            "m0 9h2l1-4v-3v4l6 1v2z"
        );
    }

    #[test]
    fn a_second_part_starts_where_the_pen_is() {
        let mut out = String::new();
        let mut svg = Svg::new(&mut out, (10, 10), Theme::Light);
        svg.path(
            &[&[(1, 1), (5, 1), (5, 5)], &[(7, 7), (9, 7), (9, 9)]],
            true,
            &Paint::fill(Ink::Busy),
        );
        assert_eq!(
            out,
            "<path class=\"f-bu\" fill=\"#4b6b8d\" d=\"m1 1h4v4zm6 6h2v2z\"/>\n"
        );
    }

    #[test]
    fn hostile_text_cannot_leave_its_element() {
        let mut out = String::new();
        let mut svg = Svg::new(&mut out, (10, 10), Theme::Light);
        svg.open(Some("</title><script>alert(1)</script>\u{0}"));
        svg.close();
        assert_eq!(
            out,
            "<g><title>&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;\u{fffd}</title></g>\n"
        );
    }
}
