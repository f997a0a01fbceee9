//! The data centre and environment that an API domain belongs to: its name, and whether two spellings mean the same.

use std::borrow::Cow;

/// Each data centre and the end of its API domain (Zoho's documentation, "Multi-DC support").
const DATA_CENTRES: [(&str, &str); 10] = [
    ("US", "zohoapis.com"),
    ("EU", "zohoapis.eu"),
    ("IN", "zohoapis.in"),
    ("AU", "zohoapis.com.au"),
    ("CN", "zohoapis.com.cn"),
    ("JP", "zohoapis.jp"),
    ("CA", "zohoapis.ca"),
    ("SA", "zohoapis.sa"),
    ("UK", "zohoapis.uk"),
    ("AE", "zohoapis.ae"),
];

/// Each environment and the beginning of its API domain. Production has no name of its own.
const ENVIRONMENTS: [(&str, &str); 3] = [("", "www."), (" sandbox", "sandbox."), (" developer", "developer.")];

/// Do two API domains mean the same data centre and environment? (contract, section 3)
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    one == other || normalize(one) == normalize(other)
}

/// Returns the one spelling that stands for all spellings of an API domain. It is for comparisons alone: a row keeps
/// the spelling that it was given.
///
/// Four things do not count: blanks around the URL, slashes at its end, the case of its scheme and host, and the
/// default port of its scheme (RFC 3986, section 6.2). A value that is not a URL is only stripped of blanks.
#[must_use]
pub fn normalize(api_domain: &str) -> Cow<'_, str> {
    let trimmed = api_domain.trim_ascii();
    let Some((scheme, rest)) = trimmed.split_once("://") else { return Cow::Borrowed(trimmed) };
    let rest = rest.trim_end_matches('/');
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (scheme, mut host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
    let default_port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    host.truncate(host.len() - if host.ends_with(default_port) { default_port.len() } else { 0 });
    Cow::Owned(format!("{scheme}://{host}{path}"))
}

/// Returns a name such as "US" or "EU sandbox", or `None` if the domain is not one of Zoho's.
#[must_use]
pub fn name(api_domain: &str) -> Option<String> {
    let url = normalize(api_domain);
    let host = url.strip_prefix("https://")?;
    ENVIRONMENTS.iter().find_map(|(environment, start)| {
        let domain = host.strip_prefix(start)?;
        let (name, _) = DATA_CENTRES.iter().find(|(_, known)| *known == domain)?;
        Some(format!("{name}{environment}"))
    })
}

/// Is this the API domain of a data centre, and not the beginning of another one's? `.com` is both: it begins
/// `.com.au`.
#[must_use]
pub fn is_whole(api_domain: &str) -> bool {
    let url = normalize(api_domain);
    let domains = ENVIRONMENTS.iter().filter_map(|(_, start)| url.strip_prefix("https://")?.strip_prefix(start));
    let begun_by = |domain: &str| -> Vec<_> {
        DATA_CENTRES.iter().map(|(_, known)| *known).filter(|known| known.starts_with(domain)).collect()
    };
    domains.into_iter().any(|domain| begun_by(domain) == [domain])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_api_domain_is_not_the_beginning_of_another_one() {
        let table = [
            ("https://www.zohoapis.eu", true),
            ("https://sandbox.zohoapis.com.au", true),
            ("https://developer.zohoapis.com.cn/", true),
            ("https://www.zohoapis.com", false),
            ("https://www.zohoapis.com.", false),
            ("https://www.zohoapis.e", false),
            ("https://www.", false),
            ("https://", false),
            ("http://127.0.0.1:8000", false),
            ("", false),
        ];
        for (api_domain, expected) in table {
            assert_eq!(is_whole(api_domain), expected, "{api_domain}");
        }
    }

    #[test]
    fn an_api_domain_names_the_data_centre_and_the_environment() {
        let table = [
            ("https://www.zohoapis.com", Some("US")),
            ("https://www.zohoapis.eu/", Some("EU")),
            (" HTTPS://WWW.ZohoAPIs.jp:443 ", Some("JP")),
            ("https://sandbox.zohoapis.eu", Some("EU sandbox")),
            ("https://developer.zohoapis.com.au", Some("AU developer")),
            ("https://www.zohoapis.com.cn", Some("CN")),
            ("https://www.zohoapis.ca", Some("CA")),
            ("https://www.zohoapis.com.example.com", None),
            ("https://evil-zohoapis.com", None),
            ("http://127.0.0.1:8000", None),
            ("", None),
        ];
        for (domain, expected) in table {
            assert_eq!(name(domain).as_deref(), expected, "{domain}");
        }
    }

    #[test]
    fn spellings_of_one_api_domain_are_the_same() {
        let eu = "https://www.zohoapis.eu";
        let local = "http://127.0.0.1:8000/zoho";
        let table = [
            (eu, eu, true),
            (eu, "https://www.zohoapis.eu/", true),
            (eu, "https://www.zohoapis.eu//", true),
            (eu, "HTTPS://WWW.ZohoAPIs.EU", true),
            (eu, "https://www.zohoapis.eu:443/", true),
            (eu, " https://www.zohoapis.eu\r\n", true),
            (local, "HTTP://127.0.0.1:8000/zoho/", true),
            ("http://localhost:80", "http://localhost", true),
            ("us", " us ", true),
            ("", " ", true),
            (eu, "https://www.zohoapis.com", false),
            (eu, "https://sandbox.zohoapis.eu", false),
            (eu, "http://www.zohoapis.eu", false),
            (eu, "https://www.zohoapis.eu:80", false),
            (eu, "https://www.zohoapis.eu:4430", false),
            (eu, "https://www.zohoapis.eu/crm", false),
            (eu, "www.zohoapis.eu", false),
            ("https://www.zohoapis.com", "https://www.zohoapis.com.au", false),
            ("http://localhost:443", "http://localhost", false),
            (local, "http://127.0.0.1:8000/Zoho", false),
            ("us", "US", false),
            ("us", "eu", false),
        ];
        for (one, other, same) in table {
            assert_eq!((is_same(one, other), is_same(other, one)), (same, same), "{one:?} {other:?}");
            assert_eq!(normalize(&normalize(other)), normalize(other), "twice: {other:?}");
        }
    }
}
