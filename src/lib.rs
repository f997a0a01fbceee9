//! A token store for the Zoho CRM Python SDK.
//!
//! There are four layers. Each one knows only the layers below it.
//!
//! - `python`: what Python sees: classes, SDK objects, exceptions. The only layer that names PyO3.
//! - [`backends`]: the places where rows are kept.
//! - [`store`]: the operations, written once over the trait [`store::backend::Backend`]; errors; leases; import and
//!   export.
//! - [`domain`]: the rules. Pure functions.
//!
//! A call goes one way: an `OAuthToken` is converted to a [`domain::Token`], the domain decides, the backend stores it
//! in one transaction, and the row is converted back.
//!
//! Read [`domain::identity`] and [`domain::merge`], then [`store::backend`] and [`backends::list`], a complete backend
//! in one file, and then [`backends::sqlite`](backends) or `python`. The lease is in [`domain::lease`] and
//! [`store::lease`].

pub mod backends;
pub mod domain;
#[cfg(feature = "python")]
mod python;
pub mod store;
