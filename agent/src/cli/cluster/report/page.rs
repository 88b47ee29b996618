//! The report as a page.

use super::{super::ClusterReport, picture::ClusterPicture};
use crate::cli::page::StandalonePage;

const PAGE: StandalonePage = StandalonePage {
    html: include_str!("page/page.html"),
    style: concat!(include_str!("../../page/colours.css"), include_str!("page/page.css")),
    script: concat!(
        include_str!("../../page/elements.js"),
        include_str!("page/tables.js"),
        include_str!("page/drawing.js"),
        include_str!("page/reach.js"),
        include_str!("page/page.js")
    ),
};

pub(super) fn page(report: &ClusterReport<ClusterPicture>) -> String {
    PAGE.with(report)
}
