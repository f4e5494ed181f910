//! Names of contexts, which are for good: a route's.

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use http::Method;

/// As many are kept: a service has fewer routes, and who takes paths for routes does not fill the memory.
const MOST: usize = 1_000;

/// A longer route is a path, or as good as one.
#[cfg(test)]
const LONGEST: usize = 1024;

/// By route, and there by method.
type Names = HashMap<String, Vec<(Method, &'static str)>>;

static NAMES: LazyLock<RwLock<Names>> = LazyLock::new(RwLock::default);

fn known(names: &Names, method: &Method, route: &str) -> Option<&'static str> {
    let of_route = names.get(route)?;
    of_route.iter().find(|(its, _)| its == method).map(|(_, name)| *name)
}

/// `GET /users/{id}`. None, where there are too many.
pub(crate) fn intern(method: &Method, route: &str) -> Option<&'static str> {
    if let Some(name) = known(&NAMES.read().unwrap_or_else(PoisonError::into_inner), method, route)
    {
        return Some(name);
    }
    let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = known(&names, method, route) {
        return Some(name);
    }
    if names.values().map(Vec::len).sum::<usize>() >= MOST {
        return None;
    }
    let name: &'static str = Box::leak(format!("{method} {route}").into_boxed_str());
    names.entry(route.to_string()).or_default().push((method.clone(), name));
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

        // A method that nobody knows has no name of its own.
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
