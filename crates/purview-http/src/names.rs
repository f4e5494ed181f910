//! Names of contexts, which are kept for the life of the process: a method and a route.
//!
//! What a client writes must not decide how many there are. It chooses the method, which is any token of up to hundreds of kilobytes: those
//! of the standards are kept apart, and a request with another one is named after its route alone. Routes are the service's; that
//! their number is bounded is for a service that takes paths for routes.

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use http::Method;

/// The most routes that have names. A service has fewer.
const MOST: usize = 1_000;

/// A longer route has no name: it is a path, or as good as one.
const LONGEST: usize = 256;

/// By route, and there by method; of all methods that are not standard, one.
type Names = HashMap<String, Vec<(Option<Method>, &'static str)>>;

static NAMES: LazyLock<RwLock<Names>> = LazyLock::new(RwLock::default);

/// The method, if it is one of RFC 9110, section 9, or of RFC 5789.
fn standard(method: &Method) -> Option<&Method> {
    const STANDARD: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    STANDARD.contains(method).then_some(method)
}

fn known(names: &Names, method: Option<&Method>, route: &str) -> Option<&'static str> {
    let of_route = names.get(route)?;
    of_route.iter().find(|(its, _)| its.as_ref() == method).map(|(_, name)| *name)
}

/// `GET /users/{id}`, or `/users/{id}` for a method that is not standard. None, where there are too many routes or this one is too long.
pub(crate) fn intern(method: &Method, route: &str) -> Option<&'static str> {
    let method = standard(method);
    if let Some(name) = known(&NAMES.read().unwrap_or_else(PoisonError::into_inner), method, route)
    {
        return Some(name);
    }
    if route.len() > LONGEST {
        return None;
    }
    let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = known(&names, method, route) {
        return Some(name);
    }
    if names.len() >= MOST && !names.contains_key(route) {
        return None;
    }
    let name = method.map_or_else(|| route.to_string(), |method| format!("{method} {route}"));
    let name: &'static str = Box::leak(name.into_boxed_str());
    names.entry(route.to_string()).or_default().push((method.cloned(), name));
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One after the other, for names are the process's.
    #[test]
    fn a_name_is_kept_once_and_there_are_only_so_many() {
        let name = intern(&Method::GET, "/users/{id}").expect("there is room");
        assert_eq!(name, "GET /users/{id}");
        assert!(std::ptr::eq(name, intern(&Method::GET, "/users/{id}").expect("it is known")));
        assert_eq!(intern(&Method::PUT, "/users/{id}"), Some("PUT /users/{id}"));

        // A method of no standard has no name of its own.
        let method = |name: &str| Method::from_bytes(name.as_bytes()).expect("a token");
        let other = intern(&method("PURGE"), "/users/{id}").expect("there is room");
        assert_eq!(other, "/users/{id}");
        let many = (0..2000).filter_map(|n| intern(&method(&format!("M{n}")), "/users/{id}"));
        assert_eq!(many.filter(|name| std::ptr::eq(*name, other)).count(), 2000);
        assert_eq!(
            intern(&method("get"), "/users/{id}"),
            Some(other),
            "methods are case-sensitive"
        );

        // Each method of a client's counts for its route, and not against others.
        let standard =
            ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
        for n in 0..MOST / 2 {
            for name in standard {
                assert!(intern(&method(name), &format!("/{n}")).is_some(), "{name} /{n}");
            }
        }
        assert_eq!(intern(&Method::GET, "/late"), Some("GET /late"));

        assert_eq!(intern(&Method::GET, &format!("/{}", "x".repeat(LONGEST))), None);
        let kept = (MOST..3 * MOST).filter(|n| intern(&Method::GET, &format!("/{n}")).is_some());
        assert!(kept.count() < MOST);
        assert_eq!(intern(&Method::GET, "/late"), Some("GET /late"));
    }
}
