//! Saving tokens: one by one, in groups ([`super::group_commit`]), and all of an import in one transaction.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::backend::{Durability, Location, Transaction};
use super::error::{Code, Error, Result};
use super::{Store, Wait};
use crate::domain::lease::{Lease, LeaseKey};
use crate::domain::{Field, Key, Row, Token, id, identity, merge, refresh_ahead};

/// The saves of this store that failed in this process. The SDK swallows the errors of saves, and a program may have
/// turned the log off.
#[derive(Default)]
pub(super) struct FailedSaves {
    count: AtomicU64,
    /// The index in [`Code::ALL`] of the last failure.
    last: AtomicUsize,
}

impl Store {
    /// Saves the token at `now` (milliseconds since the epoch), and returns the id of its row (contract, section 5).
    ///
    /// If that fails because of the store, a refreshed pair is kept in this process, and the error says so
    /// ([`Error::is_pair_kept`]).
    pub fn save(&self, token: Token<'_>, now: i64) -> Result<String> {
        Ok(self.save_releasing(token, now, &[], None, &mut false)?.id)
    }

    /// Counts a save that failed with this code, for [`Store::failed_saves`] and [`Store::check`].
    pub fn count_failed_save(&self, code: Code) {
        let index = Code::ALL.iter().position(|&one| one == code).unwrap_or_default();
        self.failed_saves.last.store(index, Ordering::Relaxed);
        self.failed_saves.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many saves have failed in this process, as the caller has counted them.
    #[must_use]
    pub fn failed_saves(&self) -> u64 {
        self.failed_saves.count.load(Ordering::Relaxed)
    }

    /// The code of the last of them.
    pub(super) fn last_failed_save(&self) -> Code {
        Code::ALL[self.failed_saves.last.load(Ordering::Relaxed)]
    }

    /// Saves the token. If it has a new access token, the same transaction releases `leases`. Sets `lease_failed` if a
    /// release failed. With `asked`, nothing is saved if that row has another login now.
    pub(super) fn save_releasing(
        &self,
        token: Token<'_>,
        now: i64,
        leases: &[KeyedLease],
        asked: Option<&Row>,
        lease_failed: &mut bool,
    ) -> Result<Saved> {
        let saved = self.run(self.deadline(Wait::Yes), |backend, deadline| {
            let save = Save { token: self.backend.owned(token), now, leases: leases.to_vec(), asked: asked.cloned() };
            let mut commit = |saves: &[&Save]| {
                let mut saved = Vec::new();
                // Kept for a second attempt. If only the answer of the first one was lost, the second finds its rows.
                let mut has_new_access_token = vec![false; saves.len()];
                backend.write(deadline, Durability::Full, &mut |transaction| {
                    saved.clear();
                    saves.iter().zip(&mut has_new_access_token).try_for_each(|(save, is_new)| {
                        saved.push(save.run(transaction, self.location(), is_new, lease_failed)?);
                        Ok(())
                    })
                })?;
                Ok(saved)
            };
            if backend.groups_saves() {
                self.saves.run(save, deadline, self.location(), commit)
            } else {
                commit(&[&save])?.pop().ok_or_else(|| deadline.busy(self.location()))
            }
        });
        saved.inspect(|saved| self.unsaved.discard_id(&saved.id)).map_err(|error| self.keep_unsaved(token, now, error))
    }

    /// Saves all tokens in one transaction, and returns the ids of their rows.
    pub fn import(&self, tokens: &[Token<'_>], now: i64) -> Result<Vec<String>> {
        let ids = self.write(|transaction, ids: &mut Vec<String>| {
            ids.clear();
            for &token in tokens {
                ids.push(upsert(transaction, token, now, self.location())?.id);
            }
            Ok(())
        })?;
        self.unsaved.discard(|kept, _| ids.iter().any(|id| id == kept));
        Ok(ids)
    }
}

/// A token to save. The leader of a group commit saves it, in any thread.
pub(super) struct Save {
    token: Row,
    now: i64,
    leases: Vec<KeyedLease>,
    /// The row that was refreshed. Nothing is saved if it has another login now.
    asked: Option<Row>,
}

/// A lease that a save may release, and its key.
pub(super) type KeyedLease = (LeaseKey, Lease);

impl Save {
    /// Saves the token. `is_new` tells whether an earlier attempt has found that the access token is new.
    fn run(
        &self,
        transaction: &mut dyn Transaction,
        location: &Location,
        is_new: &mut bool,
        lease_failed: &mut bool,
    ) -> Result<Saved> {
        let mut saved = match &self.asked {
            Some(asked) if !is_login_unchanged(transaction, asked)? => {
                Saved { id: asked.id().to_owned(), has_new_access_token: true, is_superseded: true }
            }
            _ => upsert(transaction, self.token.token(), self.now, location)?,
        };
        *is_new |= saved.has_new_access_token;
        saved.has_new_access_token = *is_new;
        for (key, lease) in self.leases.iter().filter(|_| saved.has_new_access_token) {
            *lease_failed |= transaction.release_lease(key.as_str(), &lease.owner).is_err();
        }
        Ok(saved)
    }
}

/// Does the row still have the login that was refreshed?
fn is_login_unchanged(transaction: &dyn Transaction, asked: &Row) -> Result<bool> {
    let row = transaction.by_key(Key::Id, asked.id())?.pop();
    Ok(refresh_ahead::is_same_login(asked.token(), row.as_ref().map(Row::token)))
}

/// The result of saving a token.
#[derive(Clone)]
pub(super) struct Saved {
    pub(super) id: String,
    /// The token has an access token that its row did not have.
    pub(super) has_new_access_token: bool,
    /// Nothing was saved, because the row has another login than the one that was refreshed.
    pub(super) is_superseded: bool,
}

/// Updates the token's row, or inserts one (contract, section 5).
fn upsert(transaction: &mut dyn Transaction, token: Token<'_>, now: i64, location: &Location) -> Result<Saved> {
    let access = token.get(Field::AccessToken);
    if let Some(row) = identity::find(token, |keys, accept| transaction.by_keys(keys, accept))? {
        let updated = merge::update(token, row.token());
        if merge::replaces_long_lived_secret(row.token(), updated) {
            transaction.scrub_replaced();
        }
        transaction.update(&row, updated, now)?;
        let has_new_access_token = access.is_some() && access != row.get(Field::AccessToken);
        return Ok(Saved { id: row.id().to_owned(), has_new_access_token, is_superseded: false });
    }
    if !merge::is_storable(token) {
        return Err(Error::new(Code::EmptyToken, location));
    }
    Ok(Saved { id: insert(transaction, token, now)?, has_new_access_token: access.is_some(), is_superseded: false })
}

/// Inserts a row, and returns its id: the token's id if no row has it, otherwise a new one.
pub(super) fn insert(transaction: &mut dyn Transaction, token: Token<'_>, now: i64) -> Result<String> {
    let is_used = |id: &str| Ok(!transaction.by_key(Key::Id, id)?.is_empty());
    let id = match token.get(Field::Id) {
        Some(id) if !is_used(id)? => id.to_owned(),
        _ => {
            let number = id::next(transaction.last_id()?, is_used)?;
            transaction.raise_last_id(number)?;
            number.to_string()
        }
    };
    transaction.insert(token.with(Field::Id, Some(&id)), now)?;
    Ok(id)
}
