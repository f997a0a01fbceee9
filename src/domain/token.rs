//! A token and a row: ten values, each present or absent.
//!
//! Nothing here prints a secret: no type has a `Debug` or `Display` that shows a value.

use std::fmt;

use zeroize::Zeroize;

/// The ten fields of a token, in the order of their columns (contract, section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The row's id, a string.
    Id,
    /// The user name. SDK 6 to 8 write `email:zgid`.
    UserName,
    /// The OAuth client's id.
    ClientId,
    /// The OAuth client's secret.
    ClientSecret,
    /// The refresh token. It does not expire, and Zoho never rotates it.
    RefreshToken,
    /// The access token.
    AccessToken,
    /// The grant token (authorization code). It can be used once.
    GrantToken,
    /// The expiry of the access token: milliseconds since the epoch, in decimal.
    ExpiryTime,
    /// The OAuth redirect URL.
    RedirectUrl,
    /// The URL of the user's data centre and environment.
    ApiDomain,
}

impl Field {
    /// The number of fields.
    pub const COUNT: usize = 10;

    /// All fields, in column order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Id,
        Self::UserName,
        Self::ClientId,
        Self::ClientSecret,
        Self::RefreshToken,
        Self::AccessToken,
        Self::GrantToken,
        Self::ExpiryTime,
        Self::RedirectUrl,
        Self::ApiDomain,
    ];

    /// The name of the column. Messages use it too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::UserName => "user_name",
            Self::ClientId => "client_id",
            Self::ClientSecret => "client_secret",
            Self::RefreshToken => "refresh_token",
            Self::AccessToken => "access_token",
            Self::GrantToken => "grant_token",
            Self::ExpiryTime => "expiry_time",
            Self::RedirectUrl => "redirect_url",
            Self::ApiDomain => "api_domain",
        }
    }
}

/// The fields that hold a secret. A seal holds their values.
pub const SECRETS: [Field; 4] = [Field::ClientSecret, Field::RefreshToken, Field::AccessToken, Field::GrantToken];

/// Seals and tags begin with this. No secret of Zoho does.
pub(super) const SEALED_PREFIX: &str = "zts1.";

/// Does a value look like a seal or a tag? A row in clear text must not have such a value.
#[must_use]
pub fn is_reserved(value: &str) -> bool {
    value.starts_with(SEALED_PREFIX)
}

/// The borrowed values of a token or of a row. An empty string is an absent value.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Token<'a>([Option<&'a str>; Field::COUNT]);

impl<'a> Token<'a> {
    /// Builds a token from the value of each field. `""` counts as absent (contract, terms).
    pub fn from_fn(mut value: impl FnMut(Field) -> Option<&'a str>) -> Self {
        Self(Field::ALL.map(|field| value(field).filter(|text| !text.is_empty())))
    }

    /// The value, or `None` if it is absent.
    #[must_use]
    pub const fn get(&self, field: Field) -> Option<&'a str> {
        self.0[field as usize]
    }

    /// Is the value present?
    #[must_use]
    pub const fn has(&self, field: Field) -> bool {
        self.get(field).is_some()
    }

    /// The same token with one value replaced.
    #[must_use]
    pub fn with(mut self, field: Field, value: Option<&'a str>) -> Self {
        self.0[field as usize] = value.filter(|text| !text.is_empty());
        self
    }
}

/// Shows the names of the present fields, and no value.
impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = Field::ALL.into_iter().filter(|&field| self.has(field)).map(Field::name);
        f.write_str("Token with ")?;
        f.debug_set().entries(present).finish()
    }
}

/// A stored token: an owned copy of the ten values, in one allocation, and when it was saved.
#[derive(Clone)]
pub struct Row {
    text: String,
    /// Where each value ends in the text. It begins where the one before ends. An absent value is empty.
    ends: [usize; Field::COUNT],
    /// The number of its last save, counted over all rows. A higher number was saved later.
    pub saved_order: i64,
    /// The time of its last save, in milliseconds since the epoch. `None` if another program saved it and the time is
    /// unknown.
    pub saved_at: Option<i64>,
    is_overwritten_on_drop: bool,
    looks_sealed: bool,
}

impl Row {
    /// Copies the values of `token`.
    #[must_use]
    pub fn new(token: Token<'_>, saved_order: i64, saved_at: Option<i64>) -> Self {
        let values = token.0;
        let mut text = String::with_capacity(values.iter().flatten().map(|value| value.len()).sum());
        let ends = values.map(|value| {
            text.push_str(value.unwrap_or_default());
            text.len()
        });
        let looks_sealed = SECRETS.into_iter().any(|field| token.get(field).is_some_and(is_reserved));
        Self { text, ends, saved_order, saved_at, is_overwritten_on_drop: false, looks_sealed }
    }

    /// The same row, whose values are overwritten before their memory is freed. Its clones are, too. For a row whose
    /// secrets are encrypted where it is stored.
    #[must_use]
    pub const fn overwritten_on_drop(mut self) -> Self {
        self.is_overwritten_on_drop = true;
        self
    }

    /// The same row with other values.
    #[must_use]
    pub fn with_values(&self, token: Token<'_>) -> Self {
        let mut row = Self::new(token, self.saved_order, self.saved_at);
        row.is_overwritten_on_drop = self.is_overwritten_on_drop;
        row
    }

    /// The ten values.
    #[must_use]
    pub fn token(&self) -> Token<'_> {
        Token(Field::ALL.map(|field| self.get(field)))
    }

    /// One value, or `None` if it is absent.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<&str> {
        let number = field as usize;
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        let end = self.ends[number];
        if start == end { None } else { Some(&self.text[start..end]) }
    }

    /// Does a secret of the row look like a seal or a tag ([`is_reserved`])? Then it is no row in clear text.
    #[must_use]
    pub const fn looks_sealed(&self) -> bool {
        self.looks_sealed
    }

    /// The row's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.get(Field::Id).unwrap_or_default()
    }

    /// The memory that the row takes, in bytes.
    #[must_use]
    pub const fn memory_size(&self) -> usize {
        size_of::<Self>() + self.text.len()
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if self.is_overwritten_on_drop {
            self.text.zeroize();
        }
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.token().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_is_an_absent_one() {
        let token = Token::from_fn(|field| Some(if field == Field::Id { "7" } else { "" }));
        assert!(Field::ALL.into_iter().filter(|&field| token.has(field)).eq([Field::Id]));
        assert!(!token.with(Field::Id, Some("")).has(Field::Id));
    }

    #[test]
    fn a_row_returns_the_values_it_was_made_from() {
        let token = Token::from_fn(|field| (field != Field::GrantToken).then(|| field.name()));
        assert_eq!(Row::new(token, 1, None).token(), token);
        assert_eq!(Row::new(token, 1, None).id(), "id");
    }

    #[test]
    fn a_row_takes_its_own_size_and_that_of_its_values() {
        let row = |id| Row::new(Token::default().with(Field::Id, Some(id)), 1, None);
        assert_eq!(row("1").memory_size(), size_of::<Row>() + 1);
        assert_eq!(row("12345").memory_size(), row("1").memory_size() + 4);
    }

    #[test]
    fn a_row_with_other_values_is_the_same_row_otherwise() {
        let row = Row::new(Token::default().with(Field::Id, Some("1")), 7, Some(8)).overwritten_on_drop();
        let other = row.with_values(Token::default().with(Field::Id, Some("2")));
        assert_eq!((other.id(), other.saved_order, other.saved_at), ("2", 7, Some(8)));
        assert!(other.is_overwritten_on_drop && other.clone().is_overwritten_on_drop);
        assert!(!Row::new(other.token(), 7, None).is_overwritten_on_drop);
    }

    #[test]
    fn a_row_looks_sealed_if_a_secret_looks_like_a_seal_or_a_tag() {
        for field in Field::ALL {
            let row = |value| Row::new(Token::default().with(Field::Id, Some("1")).with(field, Some(value)), 7, None);
            assert_eq!(row("zts1.made-up").looks_sealed(), SECRETS.contains(&field), "{field:?}");
            assert!(!row("zts").looks_sealed() && row("made-up").get(field) == Some("made-up"));
        }
    }

    #[test]
    fn nothing_prints_a_value() {
        let token = Token::default().with(Field::ClientSecret, Some("made-up-secret"));
        assert_eq!(format!("{token:?}"), r#"Token with {"client_secret"}"#);
        assert_eq!(format!("{:?}", Row::new(token, 1, None)), r#"Token with {"client_secret"}"#);
    }
}
