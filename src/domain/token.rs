//! What a token is made of: ten values, each present or absent.
//!
//! Nothing here can print a secret: neither type has a `Debug` or `Display` that shows a value.

use std::fmt;

/// The ten values of a token, in the order of the columns they are stored in (contract 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The row's id, a string.
    Id,
    /// Whose token it is. SDK 6 to 8 write `email:zgid`.
    UserName,
    /// The OAuth client's id.
    ClientId,
    /// The OAuth client's secret.
    ClientSecret,
    /// The refresh token: does not expire, and is never rotated by Zoho.
    RefreshToken,
    /// The access token.
    AccessToken,
    /// The grant token (authorisation code), good for one use.
    GrantToken,
    /// When the access token expires: milliseconds since the epoch, in decimal.
    ExpiryTime,
    /// The OAuth redirect URL.
    RedirectUrl,
    /// The URL of the user's data centre and environment.
    ApiDomain,
}

impl Field {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// All of them, in column order.
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

    /// The name of its column, which is also its name in messages.
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

/// The values of a token or of a row, borrowed from whoever holds them. An empty string is an absent value.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Token<'a>([Option<&'a str>; Field::COUNT]);

impl<'a> Token<'a> {
    /// Takes each value from `value`; `""` counts as absent (contract, Terms).
    pub fn from_fn(mut value: impl FnMut(Field) -> Option<&'a str>) -> Self {
        Self(Field::ALL.map(|field| value(field).filter(|text| !text.is_empty())))
    }

    /// The value, unless it is absent.
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

/// Names the fields that are present, and shows none of their values.
impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = Field::ALL.into_iter().filter(|&field| self.has(field)).map(Field::name);
        f.write_str("Token with ")?;
        f.debug_set().entries(present).finish()
    }
}

/// What is stored of a token, owned: a copy of the ten values in one allocation, and when it was saved.
#[derive(Clone)]
pub struct Row {
    text: String,
    spans: [Option<(usize, usize)>; Field::COUNT],
    /// The place of its last save among all saves: of two rows the one with the higher was saved last.
    pub saved_order: i64,
    /// When it was last saved, in milliseconds since the epoch. `None`: before this library saw it.
    pub saved_at: Option<i64>,
}

impl Row {
    /// Copies the values of `token`.
    #[must_use]
    pub fn new(token: Token<'_>, saved_order: i64, saved_at: Option<i64>) -> Self {
        let values = token.0;
        let mut text = String::with_capacity(values.iter().flatten().map(|value| value.len()).sum());
        let spans = values.map(|value| {
            value.map(|value| {
                let start = text.len();
                text.push_str(value);
                (start, text.len())
            })
        });
        Self { text, spans, saved_order, saved_at }
    }

    /// The ten values.
    #[must_use]
    pub fn token(&self) -> Token<'_> {
        Token(Field::ALL.map(|field| self.get(field)))
    }

    /// One of them, unless it is absent.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<&str> {
        self.spans[field as usize].map(|(start, end)| &self.text[start..end])
    }

    /// The row's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.get(Field::Id).unwrap_or_default()
    }

    /// How much memory it takes, in bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        size_of::<Self>() + self.text.len()
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
    fn a_row_gives_back_what_it_was_made_of() {
        let token = Token::from_fn(|field| (field != Field::GrantToken).then(|| field.name()));
        assert_eq!(Row::new(token, 1, None).token(), token);
        assert_eq!(Row::new(token, 1, None).id(), "id");
    }

    #[test]
    fn nothing_prints_a_value() {
        let token = Token::default().with(Field::ClientSecret, Some("made-up-secret"));
        assert_eq!(format!("{token:?}"), r#"Token with {"client_secret"}"#);
        assert_eq!(format!("{:?}", Row::new(token, 1, None)), r#"Token with {"client_secret"}"#);
    }
}
