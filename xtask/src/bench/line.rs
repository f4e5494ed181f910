//! The lines of JSON that the programs print: flat, and of words without quotes in them.

/// One figure of one round.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) row: String,
    pub(crate) case: String,
    pub(crate) peer: String,
    /// "failed" if it could not be measured.
    pub(crate) metric: String,
    pub(crate) value: f64,
    pub(crate) disturbed: bool,
}

impl Line {
    /// Of all that a peer has not told of a row.
    pub(crate) fn failure(row: &str, peer: &str) -> Line {
        Line {
            row: row.to_string(),
            case: String::new(),
            peer: peer.to_string(),
            metric: "failed".to_string(),
            value: 0.0,
            disturbed: false,
        }
    }

    /// None for what is no such line. What a line does not have is empty, zero, or false.
    pub(crate) fn parse(text: &str) -> Option<Line> {
        let text = text.trim().strip_prefix('{')?.strip_suffix('}')?;
        let word = |name: &str| {
            let (_, rest) = text.split_once(&format!("\"{name}\":\""))?;
            Some(rest.split_once('"')?.0.to_string())
        };
        let plain = |name: &str| {
            let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
            rest.split(',').next().map(str::trim)
        };
        Some(Line {
            row: word("row")?,
            case: word("case")?,
            peer: word("peer")?,
            metric: word("metric").unwrap_or_default(),
            value: plain("value").and_then(|value| value.parse().ok()).unwrap_or(0.0),
            disturbed: plain("disturbed") == Some("true"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_printed() {
        let text = r#"{"row":"P4","case":"live, depth 1","peer":"go","metric":"ns","value":1.25,"disturbed":true}"#;
        let line = Line::parse(text).unwrap();
        assert_eq!((line.row.as_str(), line.case.as_str()), ("P4", "live, depth 1"));
        assert_eq!((line.value, line.disturbed), (1.25, true));
        assert_eq!(Line::parse("a panic's message"), None);
        assert_eq!(Line::parse(r#"{"row":"P4","case":"c","peer":"p"}"#).unwrap().metric, "");
    }
}
