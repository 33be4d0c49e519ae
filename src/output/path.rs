//! `path` as text: the bare path.

use crate::report::path::PathReport;

use super::page::{Human, Page};

impl Human for PathReport {
    fn human(&self, page: &mut Page) {
        page.line(&self.path);
    }
}
