//! The query string: each parameter known, given once, and in range, or a sentence that says which
//! is not.

use std::time::Duration;

/// The longest timeout a client may ask for.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Parameters that are known and were given at most once.
#[derive(Debug)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Checks the names. The error is a sentence.
    pub(crate) fn new(pairs: Vec<(String, String)>, known: &[&str]) -> Result<Self, String> {
        for (index, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(format!("unknown parameter {name:?}: there are {}", known.join(", ")));
            }
            if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(format!("{name} is given twice"));
            }
        }
        Ok(Self(pairs))
    }

    /// A parameter's value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `timeout_ms`, or the default. The error is a sentence.
    pub(crate) fn timeout(&self, default: Duration) -> Result<Duration, String> {
        let Some(word) = self.get("timeout_ms") else { return Ok(default) };
        let most = LONGEST_TIMEOUT.as_millis() as u64;
        match word.parse() {
            Ok(millis) if (1..=most).contains(&millis) => Ok(Duration::from_millis(millis)),
            _ => Err(format!(
                "timeout_ms={word}: a whole number of milliseconds from 1 to {most}, please"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Result<Params, String> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Params::new(pairs.collect(), &["q", "timeout_ms"])
    }

    #[test]
    fn names_are_known_and_given_once() {
        assert_eq!(params(&[("q", "storm")]).unwrap().get("q"), Some("storm"));
        assert!(params(&[("p", "storm")]).unwrap_err().contains("unknown parameter \"p\""));
        assert!(params(&[("q", "a"), ("q", "b")]).unwrap_err().contains("q is given twice"));
    }

    #[test]
    fn a_timeout_is_a_whole_number_in_range() {
        let default = Duration::from_secs(1);
        let timeout = |word| params(&[("timeout_ms", word)]).unwrap().timeout(default);
        assert_eq!(params(&[]).unwrap().timeout(default), Ok(default));
        assert_eq!(timeout("60000"), Ok(LONGEST_TIMEOUT));
        for word in ["", "0", "-1", "1.5", "soon", "60001", "99999999999999999999"] {
            assert!(timeout(word).unwrap_err().contains("from 1 to 60000"), "{word}");
        }
    }
}
