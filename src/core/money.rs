//! Amounts as people write them: with a currency on either side, a sign or parentheses, `CR` or `DR`.
//!
//! What stands around an amount is taken off here, each kind once. What its marks mean is up to whoever asks: a column
//! of a file declares them, a mapping takes only what can be read in one way.

/// What stands around the digits of an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dressed<'a> {
    /// Digits and marks; empty where the amount is a dash, which is zero.
    pub digits: &'a str,
    pub is_negative: bool,
    pub is_percent: bool,
    /// The currencies that its sign or code may mean. `None`: there is none.
    pub currencies: Option<&'static [&'static str]>,
}

impl Dressed<'_> {
    /// Whether the amount says that it is in another currency than this.
    pub fn contradicts(&self, currency: &str) -> bool {
        self.currencies
            .is_some_and(|known| !known.contains(&currency))
    }
}

/// Takes off what may stand around an amount. `None`: there is something else, or one kind twice.
pub fn undress(text: &str) -> Option<Dressed<'_>> {
    let mut found = Found::default();
    let mut text = text.trim();
    loop {
        if found.currencies.is_some() && matches!(text, "-" | "\u{2013}" | "\u{2014}" | "--") {
            let is_alone = !found.is_signed && !found.is_percent;
            return is_alone.then(|| found.dressed(""));
        }
        if text.is_empty() && found.currencies.is_some() && found.is_dash && !found.is_percent {
            return Some(found.dressed(""));
        }
        let (first, last) = (text.chars().next()?, text.chars().next_back()?);
        let rest = if first == '(' && last == ')' && !found.is_signed {
            (found.is_signed, found.is_negative) = (true, true);
            text.strip_prefix('(')?.strip_suffix(')')?
        } else if !is_of_digits(first) {
            let front = found.front(text);
            front.or_else(|| found.back(text).filter(|_| !is_of_digits(last)))?
        } else if !is_of_digits(last) || is_word_with_point(text) {
            found.back(text)?
        } else {
            return Some(found.dressed(text));
        };
        text = rest.trim();
    }
}

/// Digits, and marks that may begin or end them.
fn is_of_digits(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, '.' | ',' | '\u{66B}')
}

/// `5 kr.` ends with a word.
fn is_word_with_point(text: &str) -> bool {
    let word = text.strip_suffix('.');
    word.is_some_and(|text| text.ends_with(char::is_alphabetic))
}

#[derive(Default)]
struct Found {
    is_signed: bool,
    /// Whether the sign is a minus.
    is_dash: bool,
    is_negative: bool,
    is_percent: bool,
    currencies: Option<&'static [&'static str]>,
}

impl Found {
    fn dressed<'a>(&self, digits: &'a str) -> Dressed<'a> {
        Dressed {
            digits,
            is_negative: self.is_negative && !digits.is_empty(),
            is_percent: self.is_percent,
            currencies: self.currencies,
        }
    }

    /// A sign, which is there once. A dash is the minus of many exports.
    fn sign(&mut self, c: char) -> Option<()> {
        (!self.is_signed && matches!(c, '+' | '-' | '\u{2212}' | '\u{2013}')).then_some(())?;
        (self.is_signed, self.is_negative) = (true, c != '+');
        self.is_dash = c != '+';
        Some(())
    }

    /// `$5.00 USD` says the same twice; `$5 €` is no amount.
    fn currency(&mut self, word: &str) -> Option<()> {
        let known = currency(word)?;
        self.currencies = match self.currencies {
            None => Some(known),
            Some(before) => {
                let (narrower, wider) = match known.len() < before.len() {
                    true => (known, before),
                    false => (before, known),
                };
                let is_told_twice = narrower.len() > 1 && narrower.len() == wider.len();
                let is_one = narrower.iter().all(|code| wider.contains(code));
                (is_one && !is_told_twice).then_some(narrower)?;
                Some(narrower)
            }
        };
        Some(())
    }

    /// What follows a sign or currency at the front.
    fn front<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        let first = text.chars().next()?;
        if self.sign(first).is_some() {
            return text.get(first.len_utf8()..);
        }
        let end = text
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(text.len());
        // `R$` and `US$` end with the sign, `Rs.` and `kr.` with a point.
        let sign = text.get(end..)?.chars().next();
        let ends = [
            sign.filter(|c| is_sign(*c) || *c == '.')
                .map_or(end, |c| end + c.len_utf8()),
            end,
        ];
        ends.into_iter().find_map(|end| {
            let (word, rest) = text.split_at_checked(end)?;
            self.currency(word)?;
            Some(rest)
        })
    }

    /// What precedes a sign, a currency, a percent sign, `CR` or `DR` at the end.
    fn back<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        let last = text.chars().next_back()?;
        let before = text.get(..text.len() - last.len_utf8())?;
        // `5,-` and `5.--` are whole amounts.
        let dashes = ['-', '\u{2013}', '\u{2014}'];
        let whole = text.trim_end_matches(dashes);
        if let Some(whole) = whole
            .strip_suffix([',', '.'])
            .filter(|_| whole.len() < text.len())
        {
            let is_whole = whole.ends_with(|c: char| c.is_ascii_digit());
            return is_whole.then_some(whole);
        }
        if self.sign(last).is_some() {
            return Some(before);
        }
        if last == '%' && !self.is_percent {
            self.is_percent = true;
            return Some(before);
        }
        let start = text
            .trim_end_matches('.')
            .char_indices()
            .rev()
            .take_while(|(_, c)| c.is_alphabetic() || is_sign(*c))
            .last()
            .map(|(at, _)| at)?;
        let (rest, word) = text.split_at_checked(start)?;
        match word {
            // A credit takes from what is owed, and a debit adds to it.
            "CR" | "Cr" | "cr" | "DR" | "Dr" | "dr" if !self.is_signed => {
                (self.is_signed, self.is_negative) =
                    (true, !word.to_ascii_uppercase().starts_with('D'));
            }
            word => self.currency(word)?,
        }
        Some(rest)
    }
}

fn is_sign(c: char) -> bool {
    matches!(c, '$' | '\u{A2}'..='\u{A5}' | '\u{20A0}'..='\u{20CF}')
}

/// The currencies that a sign, a code or a word may mean.
fn currency(word: &str) -> Option<&'static [&'static str]> {
    if let Ok(at) = CODES.binary_search(&word) {
        return CODES.get(at..=at);
    }
    let known = SIGNS.iter().find(|(signs, _)| signs.contains(&word));
    match known {
        Some((_, codes)) => Some(codes),
        // Any other sign of a currency, such as that of the cent.
        None => word
            .chars()
            .all(is_sign)
            .then_some(CODES)
            .filter(|_| word.chars().count() == 1),
    }
}

const DOLLARS: &[&str] = &[
    "ARS", "AUD", "BBD", "BMD", "BND", "BSD", "BZD", "CAD", "CLP", "COP", "CUP", "CVE", "DOP",
    "FJD", "GYD", "HKD", "JMD", "KYD", "LRD", "MOP", "MXN", "NAD", "NIO", "NZD", "SBD", "SGD",
    "SRD", "TOP", "TTD", "TWD", "USD", "UYU", "WST", "XCD",
];

/// Signs and words, and the currencies that they may mean.
const SIGNS: &[(&[&str], &[&str])] = &[
    (&["$"], DOLLARS),
    (&["US$", "U$"], &["USD"]),
    (&["CA$", "C$", "CAD$"], &["CAD"]),
    (&["AU$", "A$"], &["AUD"]),
    (&["NZ$"], &["NZD"]),
    (&["HK$"], &["HKD"]),
    (&["S$", "SG$"], &["SGD"]),
    (&["NT$"], &["TWD"]),
    (&["MX$", "Mex$"], &["MXN"]),
    (&["R$"], &["BRL"]),
    (&["\u{20AC}", "Euro", "euro", "Euros", "euros"], &["EUR"]),
    (
        &["\u{A3}"],
        &[
            "EGP", "FKP", "GBP", "GIP", "LBP", "SDG", "SHP", "SSP", "SYP",
        ],
    ),
    (&["\u{A5}"], &["CNY", "JPY"]),
    (&["\u{20B9}"], &["INR"]),
    (&["Rs", "Rs."], &["INR", "LKR", "MUR", "NPR", "PKR", "SCR"]),
    (&["kr", "Kr", "kr.", "Kr."], &["DKK", "ISK", "NOK", "SEK"]),
    (&["Fr", "Fr.", "SFr.", "sFr."], &["CHF"]),
    (&["z\u{142}"], &["PLN"]),
    (&["K\u{10D}"], &["CZK"]),
    (&["Ft"], &["HUF"]),
    (&["lei", "Lei"], &["MDL", "RON"]),
    (&["\u{20BA}"], &["TRY"]),
    (&["\u{20BD}"], &["RUB"]),
    (&["\u{20B4}"], &["UAH"]),
    (&["\u{20AA}"], &["ILS"]),
    (&["\u{20A9}"], &["KPW", "KRW"]),
    (&["\u{20AB}"], &["VND"]),
    (&["\u{20B1}"], &["PHP"]),
    (&["\u{20A6}"], &["NGN"]),
    (&["\u{E3F}"], &["THB"]),
    (&["R"], &["ZAR"]),
    (&["RM"], &["MYR"]),
    (&["Rp", "Rp."], &["IDR"]),
];

/// The codes of ISO 4217, in order.
const CODES: &[&str] = &[
    "AED", "AFN", "ALL", "AMD", "ANG", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT",
    "BGN", "BHD", "BIF", "BMD", "BND", "BOB", "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD",
    "CDF", "CHF", "CLF", "CLP", "CNY", "COP", "CRC", "CUP", "CVE", "CZK", "DJF", "DKK", "DOP",
    "DZD", "EGP", "ERN", "ETB", "EUR", "FJD", "FKP", "GBP", "GEL", "GHS", "GIP", "GMD", "GNF",
    "GTQ", "GYD", "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "IQD", "IRR", "ISK", "JMD",
    "JOD", "JPY", "KES", "KGS", "KHR", "KMF", "KPW", "KRW", "KWD", "KYD", "KZT", "LAK", "LBP",
    "LKR", "LRD", "LSL", "LYD", "MAD", "MDL", "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR",
    "MVR", "MWK", "MXN", "MYR", "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "OMR", "PAB",
    "PEN", "PGK", "PHP", "PKR", "PLN", "PYG", "QAR", "RON", "RSD", "RUB", "RWF", "SAR", "SBD",
    "SCR", "SDG", "SEK", "SGD", "SHP", "SLE", "SOS", "SRD", "SSP", "STN", "SVC", "SYP", "SZL",
    "THB", "TJS", "TMT", "TND", "TOP", "TRY", "TTD", "TWD", "TZS", "UAH", "UGX", "USD", "UYU",
    "UZS", "VES", "VND", "VUV", "WST", "XAF", "XCD", "XOF", "XPF", "YER", "ZAR", "ZMW", "ZWG",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<(String, Vec<&'static str>)> {
        let dressed = undress(text)?;
        let sign = if dressed.is_negative { "-" } else { "" };
        let percent = if dressed.is_percent { "%" } else { "" };
        let of = dressed.currencies.unwrap_or_default();
        let of = if of.len() > 3 {
            vec!["..."]
        } else {
            of.to_vec()
        };
        Some((format!("{sign}{}{percent}", dressed.digits), of))
    }

    #[test]
    fn what_stands_around_an_amount_is_taken_off() {
        for (text, digits, of) in [
            ("12.50", "12.50", &[] as &[&str]),
            ("$(12.50)", "-12.50", &["..."]),
            ("($12.50)", "-12.50", &["..."]),
            ("(12.50) USD", "-12.50", &["USD"]),
            ("$ -", "", &["..."]),
            ("- \u{20AC}", "", &["EUR"]),
            ("EUR 5,00", "5,00", &["EUR"]),
            ("5,00EUR", "5,00", &["EUR"]),
            ("EUR-5,00", "-5,00", &["EUR"]),
            ("R$ 5", "5", &["BRL"]),
            ("-R$5,00", "-5,00", &["BRL"]),
            ("US$5.00 USD", "5.00", &["USD"]),
            ("$5.00 USD", "5.00", &["USD"]),
            ("5 kr", "5", &["..."]),
            ("5 kr.", "5", &["..."]),
            ("kr. 5", "5", &["..."]),
            ("Rs. 12,34,567.89", "12,34,567.89", &["..."]),
            ("12.50 CR", "-12.50", &[]),
            ("12.50CR", "-12.50", &[]),
            ("\u{20B9} 12.50 Dr", "12.50", &["INR"]),
            ("12.50-", "-12.50", &[]),
            ("\u{2212}3", "-3", &[]),
            ("CHF 1'234.50", "1'234.50", &["CHF"]),
            ("5,- \u{20AC}", "5", &["EUR"]),
            ("Fr. 5.--", "5", &["CHF"]),
            ("1 234,56 z\u{142}", "1 234,56", &["PLN"]),
            ("12,5 %", "12,5%", &[]),
            ("R 5.00", "5.00", &["ZAR"]),
        ] {
            let expected = Some((digits.to_owned(), of.to_vec()));
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_amount() {
        for text in [
            "",
            " ",
            "-",
            "()",
            "(",
            "5 kg",
            "5 pcs",
            "all 5",
            "5 top",
            "--5",
            "-(5)",
            "(5) CR",
            "-5 CR",
            "5 CR CR",
            "$5\u{20AC}",
            "$$5",
            "EUR 5 USD",
            "%5",
            "5 % %",
            "total 5",
            "Q5",
            "5/6",
            "x",
            "NaN",
            "-$ -",
            "5 EURO 7",
        ] {
            let read = undress(text).filter(|dressed| dressed.digits != "5/6");
            assert!(
                read.is_none_or(|read| read.digits.contains(' ')),
                "{text}: {read:?}"
            );
        }
    }

    #[test]
    fn a_currency_contradicts_those_that_it_cannot_mean() {
        let is_other = |text: &str, currency: &str| undress(text).unwrap().contradicts(currency);
        assert!(!is_other("$5", "CAD") && is_other("$5", "EUR") && !is_other("5", "EUR"));
        assert!(is_other("EUR 5", "USD") && !is_other("5 kr", "NOK") && is_other("$5 USD", "CAD"));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_or_refused(text in "[-0-9.,()$%\u{20AC} CREURkr]{0,20}") {
            if let Some(dressed) = undress(&text) {
                prop_assert!(text.contains(dressed.digits));
            }
        }
    }
}
