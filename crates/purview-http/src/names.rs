//! Names of contexts, which are for good: a route's.

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use http::Method;

/// As many are kept: a service has fewer routes, and who takes paths for routes does not fill the memory.
const MOST: usize = 1_000;

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

    #[test]
    fn a_name_is_kept_once_and_there_are_only_so_many() {
        let name = intern(&Method::GET, "/users/{id}").expect("there is room");
        assert_eq!(name, "GET /users/{id}");
        assert!(std::ptr::eq(name, intern(&Method::GET, "/users/{id}").expect("it is known")));
        assert_eq!(intern(&Method::PUT, "/users/{id}"), Some("PUT /users/{id}"));
        let kept = (0..2 * MOST).filter(|n| intern(&Method::GET, &format!("/{n}")).is_some());
        assert!(kept.count() < MOST);
        assert_eq!(intern(&Method::GET, "/users/{id}"), Some("GET /users/{id}"));
    }
}
