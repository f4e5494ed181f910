//! W3C Baggage: a list of names and values.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const HEADER: HeaderName = HeaderName::from_static("baggage");

/// W3C Baggage, "Limits": as many have to be passed on; more are not.
const MOST_MEMBERS: usize = 64;
const MOST_BYTES: usize = 8192;

/// The members of a request's baggage, as they came, in order.
///
/// What is no member is left out; what is too much for the limits (64 members, 8,192 bytes) is, too, from the end.
///
/// ```
/// use http::HeaderMap;
/// use purview_http::propagation::Baggage;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("baggage", "user=Am%C3%A9lie;ttl=5, color=green".parse().unwrap());
/// let baggage = Baggage::read(&headers);
/// assert_eq!(baggage.get("user").unwrap(), "Amélie");
/// assert_eq!(baggage.to_string(), "user=Am%C3%A9lie;ttl=5,color=green");
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Baggage {
    members: Vec<Member>,
    /// Of the whole, as it is written.
    bytes: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Member {
    name: String,
    /// Percent-encoded, and with its properties.
    rest: String,
}

impl Member {
    fn parse(text: &str) -> Option<Member> {
        let (name, rest) = text.split_once('=')?;
        let (name, rest) = (name.trim_matches(OWS), rest.trim_matches(OWS));
        let value = rest.split(';').next().unwrap_or_default().trim_matches(OWS);
        let is_member = is_token(name)
            && value.bytes().all(is_octet)
            && rest.bytes().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e) && byte != b',');
        is_member.then(|| Member { name: name.to_string(), rest: rest.to_string() })
    }

    fn len(&self) -> usize {
        self.name.len() + 1 + self.rest.len()
    }
}

const OWS: [char; 2] = [' ', '\t'];

/// RFC 9110, 5.6.2.
fn is_token(text: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// `baggage-octet`: visible, and none of `" , ; \`.
fn is_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

impl Baggage {
    /// What `headers` bring; of several of that name, all.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Baggage {
        let mut baggage = Baggage::default();
        let values = headers.get_all(HEADER).iter().filter_map(|value| value.to_str().ok());
        for text in values.flat_map(|value| value.split(',')) {
            if let Some(member) = Member::parse(text) {
                if !baggage.add(member) {
                    break;
                }
            }
        }
        baggage
    }

    /// The value of the last member of that name, decoded. What is no UTF-8 is replaced.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        let member = self.members.iter().rfind(|member| member.name == name)?;
        let value = member.rest.split(';').next().unwrap_or_default().trim_matches(OWS);
        Some(decode(value))
    }

    /// Whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Says in a header what is there, if that is anything.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(self.to_string()) {
            headers.insert(HEADER, value);
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        let members = std::mem::take(&mut self.members);
        self.bytes = 0;
        for member in members {
            if member.name != name {
                self.add(member);
            }
        }
    }

    /// In the place of what was there by that name. Not if there is no room for it.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        if is_token(name) {
            self.add(Member { name: name.to_string(), rest: encode(value).into_owned() });
        }
    }

    /// Whether there was room.
    fn add(&mut self, member: Member) -> bool {
        let comma = usize::from(!self.members.is_empty());
        let bytes = self.bytes + comma + member.len();
        let fits = self.members.len() < MOST_MEMBERS && bytes <= MOST_BYTES;
        if fits {
            self.bytes = bytes;
            self.members.push(member);
        }
        fits
    }
}

impl fmt::Display for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Member { name, rest }) in self.members.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{name}={rest}")?;
        }
        Ok(())
    }
}

fn encode(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| is_octet(byte) && byte != b'%';
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.extend([byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
        }
    }
    Cow::Owned(encoded)
}

const HEX: [char; 16] =
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];

/// A percent sign that is not followed by two digits stands for itself.
fn decode(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        match (byte, digit(bytes.get(i + 1)), digit(bytes.get(i + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                i += 3;
            }
            _ => {
                decoded.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
