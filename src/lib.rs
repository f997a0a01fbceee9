//! A token store for the Zoho CRM Python SDK.
//!
//! `OAuthToken` → **convert** → `Token` → **domain decides** → **backend stores it atomically** → row → **convert** → the
//! caller's `OAuthToken`: one direction, three layers, and each knows only those below it.
//!
//! - `python`: what Python sees: classes, SDK objects, exceptions. The only folder that names PyO3.
//! - [`store`]: the operations, written once over a backend; errors; the backends.
//! - [`domain`]: the rules. Pure.
//!
//! Read [`domain::identity`], [`domain::merge`], [`store`], then [`store::list`], a whole backend on one page, and only
//! then SQLite or PyO3. Who may refresh is [`domain::lease`], over any backend [`store::lease`].

pub mod domain;
#[cfg(feature = "python")]
mod python;
pub mod store;
