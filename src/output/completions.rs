//! `completions` as text: the bare script.

use crate::report::completions::CompletionsReport;

use super::page::{Human, Page};

impl Human for CompletionsReport {
    fn human(&self, page: &mut Page) {
        page.line(self.script.trim_end());
    }
}
