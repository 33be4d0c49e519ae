//! `man` as text.

use crate::report::man::ManReport;

use super::page::{Human, Page};

impl Human for ManReport {
    fn human(&self, page: &mut Page) {
        page.line(format!("wrote {} pages to {}", self.files.len(), self.path));
    }
}
