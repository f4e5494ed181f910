//! Chains of errors: what contains what, and how a chain is shown. None of it recurses: a chain may be long, or a ring.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io;

use super::Error;
use crate::sync::thread_local;

thread_local! {
    /// Whether this thread asks for a source to [find](Error::find) an end in it.
    static FINDING: Cell<bool> = const { Cell::new(false) };
}

/// The most links that are followed: a chain may be a ring.
const FOLLOWED: usize = 1000;

/// The links of a chain, from `err` on, also those that an error contains and does not have as its source.
pub(super) fn links<'a>(
    err: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    let next =
        |link: &&'a (dyn std::error::Error + 'static)| content(*link).or_else(|| behind(*link));
    std::iter::successors(Some(err), next).take(FOLLOWED)
}

/// Returns what `link` contains and displays: the content of an `io::Error`, or the cause of an [`Error`]. Their `source()` is the source
/// of that.
pub(super) fn content<'a>(
    link: &'a (dyn std::error::Error + 'static),
) -> Option<&'a (dyn std::error::Error + 'static)> {
    if let Some(error) = link.downcast_ref::<io::Error>() {
        return error.get_ref().map(|content| content as _);
    }
    link.downcast_ref::<Error>()?.cause().map(|cause| &**cause as _)
}

/// Returns the source of `link`; for an error of this crate that displays another one, that one.
pub(super) fn behind<'a>(
    link: &'a (dyn std::error::Error + 'static),
) -> Option<&'a (dyn std::error::Error + 'static)> {
    /// Restores what was before, also by a panic of the user's code.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            FINDING.with(|finding| finding.set(self.0));
        }
    }
    let _before = Before(FINDING.with(|finding| finding.replace(true)));
    link.source()
}

/// The source of an error that displays `shown`: by std's rule, what it displays is not its source. [`Error::find`] gets it all the
/// same, and cannot get it by downcasting, since the type of the error that contains it may have a parameter.
pub(crate) fn source_of_shown<'a>(
    shown: &'a (dyn std::error::Error + 'static),
    source: Option<&'a (dyn std::error::Error + 'static)>,
) -> Option<&'a (dyn std::error::Error + 'static)> {
    if FINDING.with(Cell::get) { Some(shown) } else { source }
}

/// What `err` displays. `to_string` panics where the error cannot be displayed.
pub(super) fn text(err: &dyn std::error::Error) -> Result<String, fmt::Error> {
    let mut text = String::new();
    write!(text, "{err}")?;
    Ok(text)
}

/// Displays an error with all its sources, leaving out a source whose text is part of the text before it.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

/// The most links that are displayed: a chain may be a ring.
const LINKS: usize = 32;

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = text(self.0)?;
        f.write_str(&last)?;
        let mut link = self.0;
        for _ in 0..LINKS {
            let Some(source) = link.source() else { return Ok(()) };
            let text = text(source)?;
            if !last.contains(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            link = source;
        }
        if link.source().is_some() { f.write_str(": …") } else { Ok(()) }
    }
}

/// Shows an error with what it contains, which is this deep in another one. What is too deep is displayed.
pub(super) struct Nested<'a>(pub(super) &'a (dyn std::error::Error + 'static), pub(super) usize);

impl fmt::Debug for Nested<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Nested(link, depth) = self;
        let content = content(link).map(|content| Nested(content, depth + 1));
        match (link.downcast_ref::<Error>(), link.downcast_ref::<io::Error>(), content) {
            (Some(_), ..) | (_, Some(_), Some(_)) if depth > LINKS => write!(f, "{link}"),
            (Some(error), _, cause) => f
                .debug_struct("Error")
                .field("kind", &error.kind())
                .field("cause", &cause)
                .field("origin", error.origin())
                .finish(),
            // As its own Debug, which would begin to count anew.
            (None, Some(error), Some(content)) => f
                .debug_struct("Custom")
                .field("kind", &error.kind())
                .field("error", &content)
                .finish(),
            _ => fmt::Debug::fmt(link, f),
        }
    }
}
