//! How many requests may be sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Request;

/// A part of all requests may be sent again, and no more: where most fail, sending them all again makes it worse.
///
/// Each request pays in a part of a retry, each retry takes a whole one; so many are there from the start, and are kept at the most.
/// Clones share one account. The scheme is Finagle's (`RetryBudget`), without its decay over time.
///
/// ```
/// use purview_http::client::RetryBudget;
/// let budget = RetryBudget::new(0.5, 1); // one retry for two requests, and one to begin with
/// assert!(budget.withdraw() && !budget.withdraw());
/// budget.deposit();
/// budget.deposit();
/// assert!(budget.withdraw());
/// ```
#[derive(Clone, Debug)]
pub struct RetryBudget(Arc<Account>);

/// Where a request has paid in last. Its copies, which are sent again, have paid, too.
#[derive(Clone)]
struct Paid(Arc<Account>);

#[derive(Debug)]
struct Account {
    /// In thousandths of a retry.
    balance: AtomicU64,
    deposit: u64,
    most: u64,
}

const RETRY: u64 = 1_000;

impl RetryBudget {
    /// `part` of all requests may be sent again, from 0 to 1; and `reserve` retries at any time, for who sends few.
    #[must_use]
    pub fn new(part: f64, reserve: u32) -> RetryBudget {
        let part = if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) };
        let most = u64::from(reserve).max(1) * RETRY;
        let balance = AtomicU64::new(u64::from(reserve) * RETRY);
        RetryBudget(Arc::new(Account {
            balance,
            deposit: (part * RETRY as f64).round() as u64,
            most,
        }))
    }

    /// A request was sent.
    pub fn deposit(&self) {
        let Account { balance, deposit, most } = &*self.0;
        let add = |balance: u64| Some((balance + deposit).min(*most));
        let _ = balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// A request is sent. It pays in once, however many layers with this budget it comes through.
    pub(super) fn deposit_for<B>(&self, request: &mut Request<B>) {
        let paid = request.extensions().get::<Paid>();
        if !paid.is_some_and(|Paid(account)| Arc::ptr_eq(account, &self.0)) {
            self.deposit();
            request.extensions_mut().insert(Paid(Arc::clone(&self.0)));
        }
    }

    /// Whether one may be sent again; if so, that is paid for.
    #[must_use = "who may not send it again should not"]
    pub fn withdraw(&self) -> bool {
        let take = |balance: u64| balance.checked_sub(RETRY);
        self.0.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// A fifth of all requests, and ten.
impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget::new(0.2, 10)
    }
}
