//! What a comparison with a plain build may show.

use klto_verify::Report;

/// Fails unless everything was compared and is equal, but for the order of sections of modules.
///
/// A module's sections come in the order in which its objects have them first, and an object's native may
/// lack one that the plain object has.
pub fn assert_like_reference(report: &Report) {
    for row in &report.rows {
        assert!(row.count > 0, "nothing was compared: {}", row.what);
        let is_order = |text: &String| row.what == "sections" && text.contains(": order, place ");
        // All of them are in words.
        assert_eq!(row.difference_count, row.differences.len(), "{report}");
        assert!(row.differences.iter().all(is_order), "{report}");
    }
}
