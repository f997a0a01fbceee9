//! What Zoho's data centre and environment are called, by the API domain that a token has.

/// The data centres, as Zoho's page "Multi DC" calls them, and the end of their API domains' names.
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

/// The environments, and the beginning of their API domains' names. Production goes without saying.
const ENVIRONMENTS: [(&str, &str); 3] = [("", "www."), (" sandbox", "sandbox."), (" developer", "developer.")];

/// "US", "EU sandbox" and the like; `None` for a domain that is none of Zoho's.
#[must_use]
pub fn data_centre(api_domain: &str) -> Option<String> {
    let host = api_domain.strip_prefix("https://")?.trim_end_matches('/');
    ENVIRONMENTS.iter().find_map(|(environment, start)| {
        let domain = host.strip_prefix(start)?;
        let (name, _) = DATA_CENTRES.iter().find(|(_, known)| *known == domain)?;
        Some(format!("{name}{environment}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_domain_tells_the_data_centre_and_the_environment() {
        let table = [
            ("https://www.zohoapis.com", Some("US")),
            ("https://www.zohoapis.eu/", Some("EU")),
            ("https://sandbox.zohoapis.eu", Some("EU sandbox")),
            ("https://developer.zohoapis.com.au", Some("AU developer")),
            ("https://www.zohoapis.com.cn", Some("CN")),
            ("https://www.zohoapis.ca", Some("CA")),
            ("https://www.zohoapis.com.example.com", None),
            ("https://evil-zohoapis.com", None),
            ("http://127.0.0.1:8000", None),
            ("", None),
        ];
        for (domain, name) in table {
            assert_eq!(data_centre(domain).as_deref(), name, "{domain}");
        }
    }
}
