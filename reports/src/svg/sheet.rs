//! The document around a picture: what it is called, what it says about itself, its colours and its ground.

use super::backend::{Paint, Svg};
use super::element::rectangle;
use super::ink::{self, Ink, Theme};
use super::plan::WIDTH;
use crate::text;

/// What is around a picture.
pub(super) struct Sheet<'a> {
    pub(super) id: String,
    pub(super) description_id: String,
    pub(super) name: &'a str,
    pub(super) description: &'a str,
    pub(super) metadata: Option<&'a str>,
    pub(super) definitions: &'a str,
    pub(super) height: i32,
}

impl Sheet<'_> {
    /// The whole document.
    pub(super) fn with(&self, theme: Theme, body: &str) -> String {
        let (title_id, description_id, height) = (&self.id, &self.description_id, self.height);
        let name = text::escape(self.name);
        let metadata = self.metadata.map_or_else(String::new, |metadata| {
            format!("<metadata>{}</metadata>\n", text::escape(metadata))
        });
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plimsoll\" role=\"img\" \
             aria-labelledby=\"{title_id} {description_id}\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',\
             'DejaVu Sans',sans-serif\">\n<title id=\"{title_id}\">{name}</title>\n\
             <desc id=\"{description_id}\">{}</desc>\n{metadata}<style>\n",
            text::escape(self.description),
        );
        out.push_str(&ink::style_sheet(theme));
        out.push_str("</style>\n");
        out.push_str(self.definitions);
        let mut ground = Svg::new(&mut out, (0, 0), theme);
        let all = rectangle((0, 0), (WIDTH, height));
        ground.path(&[&all], true, &Paint::fill(Ink::Background));
        out.push_str(body);
        out.push_str("</svg>\n");
        out
    }
}
