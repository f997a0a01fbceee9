//! The marks of the last changes of a document. They tell whether a change was made whose answer was lost or wrong.

use serde::{Deserialize, Serialize};

/// How many marks a document keeps. So a change is found if fewer changes than this one follow it.
const KEPT: usize = 8;

/// The random marks of the last changes, the newest first. None if there is no document yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Marks(Vec<String>);

/// What became of a change whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trace {
    /// It was made. Others may have followed it.
    Made,
    /// It was not made, and neither was any other change.
    Unchanged,
    /// It was not made. Another change came first.
    Overtaken,
    /// More changes were made than a document keeps marks of, so it may be among them.
    Unknown,
}

impl Marks {
    /// The marks after a change with this mark.
    pub(super) fn with(&self, mark: &str) -> Self {
        let earlier = self.0.iter().take(KEPT - 1).map(String::as_str);
        Self(std::iter::once(mark).chain(earlier).map(str::to_owned).collect())
    }

    pub(super) fn contain(&self, mark: &str) -> bool {
        self.0.iter().any(|kept| kept == mark)
    }

    /// What became of the change with this mark. It was to follow the changes of `before`.
    pub(super) fn trace(&self, mark: &str, before: &Self) -> Trace {
        if self.contain(mark) {
            return Trace::Made;
        }
        if self.0.first() == before.0.first() {
            return Trace::Unchanged;
        }
        // A change that was made would come directly after the newest one of `before`.
        let is_complete = before.0.first().map_or(self.0.len() < KEPT, |newest| self.contain(newest));
        if is_complete { Trace::Overtaken } else { Trace::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks, the newest first.
    fn marks(text: &str) -> Marks {
        Marks(text.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn the_last_eight_marks_are_kept() {
        assert_eq!(marks("").with("a"), marks("a"));
        assert_eq!(marks("b a").with("c"), marks("c b a"));
        assert_eq!(marks("h g f e d c b a").with("i"), marks("i h g f e d c b"));
        assert_eq!(marks("i h g f e d c b a").with("j"), marks("j i h g f e d c"), "a longer list becomes shorter");
    }

    #[test]
    fn what_became_of_a_change() {
        // The marks that it was to follow, the marks of the document now, what became of "x".
        let table = [
            ("", "", Trace::Unchanged),
            ("", "x", Trace::Made),
            ("", "b x", Trace::Made),
            ("", "b", Trace::Overtaken),
            ("", "h g f e d c b", Trace::Overtaken),
            ("", "i h g f e d c b", Trace::Unknown),
            ("a", "a", Trace::Unchanged),
            ("b a", "b a", Trace::Unchanged),
            ("a", "x a", Trace::Made),
            ("a", "b x a", Trace::Made),
            ("a", "h g f e d c b x", Trace::Made),
            ("a", "b a", Trace::Overtaken),
            ("a", "h g f e d c b a", Trace::Overtaken),
            ("a", "i h g f e d c b", Trace::Unknown),
            // The place was emptied, and another program wrote a new document.
            ("a", "", Trace::Unknown),
            ("a", "b", Trace::Unknown),
        ];
        for (before, now, expected) in table {
            assert_eq!(marks(now).trace("x", &marks(before)), expected, "{before:?} {now:?}");
        }
    }
}
