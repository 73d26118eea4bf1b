//! Comes in: two lists, a reference's and a candidate's. Goes out: what differs, in words, as
//! many as a reader wants to see.
//!
//! Does not know what the lists hold.

use std::collections::HashMap;

/// How many differences are kept in words; all are counted.
const KEPT: usize = 20;

/// Differences found so far.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    pub(crate) total: usize,
    pub(crate) first: Vec<String>,
}

impl Differences {
    /// Counts one difference and keeps it if it is among the first.
    pub(crate) fn push(&mut self, difference: impl Into<String>) {
        self.total += 1;
        if self.first.len() < KEPT {
            self.first.push(difference.into());
        }
    }

    /// Compares two lists in order: first what only one side has, then where the order of what
    /// both have differs. `place` stands before each difference.
    pub(crate) fn compare_lists(
        &mut self,
        place: &str,
        reference: &[String],
        candidate: &[String],
    ) {
        if reference == candidate {
            return;
        }
        let (reference_only, reference_common) = split_common(reference, candidate);
        let (candidate_only, candidate_common) = split_common(candidate, reference);
        for item in reference_only {
            self.push(format!("{place}only in the reference: {item}"));
        }
        for item in candidate_only {
            self.push(format!("{place}only in the candidate: {item}"));
        }
        let pairs = reference_common.iter().zip(&candidate_common).enumerate();
        for (index, (reference, candidate)) in pairs {
            if reference != candidate {
                let order = format!("reference {reference}, candidate {candidate}");
                self.push(format!("{place}order, place {}: {order}", index + 1));
            }
        }
    }

    /// Compares two maps, given as lists, without regard to order.
    pub(crate) fn compare_maps(
        &mut self,
        place: &str,
        reference: &[(String, String)],
        candidate: &[(String, String)],
    ) {
        let reference_map: HashMap<_, _> = reference.iter().map(|(k, v)| (k, v)).collect();
        let candidate_map: HashMap<_, _> = candidate.iter().map(|(k, v)| (k, v)).collect();
        for (key, value) in reference {
            match candidate_map.get(key) {
                None => self.push(format!("{place}only in the reference: {key} {value}")),
                Some(other) if *other != value => self.push(format!(
                    "{place}{key}: reference {value}, candidate {other}"
                )),
                Some(_) => {}
            }
        }
        for (key, value) in candidate {
            if !reference_map.contains_key(key) {
                self.push(format!("{place}only in the candidate: {key} {value}"));
            }
        }
    }
}

/// Splits `list` into what `other` lacks and what both have, as often as both have it, in order.
fn split_common<'a>(list: &'a [String], other: &[String]) -> (Vec<&'a str>, Vec<&'a str>) {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for item in other {
        *left.entry(item).or_default() += 1;
    }
    list.iter().map(String::as_str).fold(
        (Vec::new(), Vec::new()),
        |(mut only, mut common), item| {
            match left.get_mut(item) {
                Some(count) if *count > 0 => {
                    *count -= 1;
                    common.push(item);
                }
                _ => only.push(item),
            }
            (only, common)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    fn list(words: &str) -> Vec<String> {
        words.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn one_more_item_is_one_difference() {
        let mut differences = Differences::default();
        differences.compare_lists("", &list("a b c d"), &list("a x b c d"));
        assert_eq!(differences.first, ["only in the candidate: x"]);
    }

    #[test]
    fn another_order_of_the_same_items_is_a_difference() {
        let mut differences = Differences::default();
        differences.compare_lists("m: ", &list("a a b"), &list("a b a"));
        assert_eq!(differences.total, 2);
        assert_eq!(
            differences.first[0],
            "m: order, place 2: reference a, candidate b"
        );
    }

    #[test]
    fn only_the_first_differences_are_kept_and_all_are_counted() {
        let mut differences = Differences::default();
        let long: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        differences.compare_lists("", &long, &[]);
        assert_eq!((differences.total, differences.first.len()), (50, KEPT));
    }

    #[test]
    fn maps_differ_by_key_and_value_and_not_by_order() {
        let one = [pair("a", "1"), pair("b", "2")];
        let other = [pair("b", "3"), pair("a", "1")];
        let mut differences = Differences::default();
        differences.compare_maps("", &one, &other);
        assert_eq!(differences.first, ["b: reference 2, candidate 3"]);
    }
}
