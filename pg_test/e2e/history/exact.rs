//! Exact amounts, days and time zones, implemented by hand. The pipeline leaves them to PostgreSQL and chrono, so a
//! mistake of theirs or of ours shows as a difference.

use std::fmt;

/// A decimal number: `digits` / 10^`places`, without zeros at its end.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exact {
    // Compared only for equality and with zero, where the order of the fields does not matter.
    digits: i128,
    places: u32,
}

impl Exact {
    pub const ZERO: Exact = Exact::new(0, 0);
    pub const ONE: Exact = Exact::new(1, 0);

    pub const fn new(mut digits: i128, mut places: u32) -> Exact {
        while places > 0 && digits % 10 == 0 {
            digits /= 10;
            places -= 1;
        }
        Exact { digits, places }
    }

    /// Reads what PostgreSQL shows of a numeric.
    pub fn read(text: &str) -> Exact {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{fraction}").parse();
        Exact::new(digits.expect("a numeric"), fraction.len() as u32)
    }

    pub fn is_negative(self) -> bool {
        self.digits < 0
    }

    /// Whether it is 10^15 or more, on either side of zero.
    pub fn is_too_large(self) -> bool {
        self.digits.abs() / 10_i128.pow(self.places) >= 1_000_000_000_000_000
    }

    pub fn plus(self, other: Exact) -> Exact {
        let places = self.places.max(other.places);
        Exact::new(self.at(places) + other.at(places), places)
    }

    pub fn times(self, other: Exact) -> Exact {
        let digits = self.digits.checked_mul(other.digits);
        Exact::new(digits.expect("few digits"), self.places + other.places)
    }

    /// The average of `count` numbers whose sum this is, rounded half away from zero to ten places.
    pub fn shared_by(self, count: usize) -> Exact {
        let (whole, parts) = match self.places {
            places if places <= 10 => (self.digits * 10_i128.pow(10 - places), 1),
            places => (self.digits, 10_i128.pow(places - 10)),
        };
        let divisor = parts * count as i128;
        let rounded = (whole.abs() * 2 + divisor) / (divisor * 2);
        Exact::new(rounded * whole.signum(), 10)
    }

    pub fn negated(self) -> Exact {
        Exact::new(-self.digits, self.places)
    }

    fn at(self, places: u32) -> i128 {
        let factor = 10_i128.pow(places - self.places);
        self.digits.checked_mul(factor).expect("few digits")
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let sign = if self.digits < 0 { "-" } else { "" };
        let one = 10_u128.pow(self.places);
        let (whole, rest) = (
            self.digits.unsigned_abs() / one,
            self.digits.unsigned_abs() % one,
        );
        match self.places {
            0 => write!(f, "{sign}{whole}"),
            places => write!(f, "{sign}{whole}.{rest:0>width$}", width = places as usize),
        }
    }
}

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A day of the calendar, counted from 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub i64);

impl Day {
    pub const fn new(year: i64, month: i64, day: i64) -> Day {
        // The year begins in March, so that the leap day is its last.
        let (y, m) = if month > 2 {
            (year, month - 3)
        } else {
            (year - 1, month + 9)
        };
        Day(y * 365 + y.div_euclid(4) - y.div_euclid(100)
            + y.div_euclid(400)
            + (153 * m + 2) / 5
            + day
            - 1
            - 719_468)
    }

    pub fn parts(self) -> (i64, i64, i64) {
        let mut year = 1970 + self.0.div_euclid(366);
        while Day::new(year + 1, 1, 1) <= self {
            year += 1;
        }
        let mut month = 12;
        while Day::new(year, month, 1) > self {
            month -= 1;
        }
        (year, month, self.0 - Day::new(year, month, 1).0 + 1)
    }

    /// The first Sunday from this day on.
    fn sunday(self) -> Day {
        // 1970-01-04 was one.
        Day(self.0 + (3 - self.0).rem_euclid(7))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (year, month, day) = self.parts();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Zones whose days begin far from UTC's, and those whose clocks change: by an hour, by half of one, and in the
/// southern summer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    Utc,
    NewYork,
    Berlin,
    Kathmandu,
    Kiritimati,
    PagoPago,
    LordHowe,
}

impl Zone {
    pub const ALL: [Zone; 7] = [
        Zone::Utc,
        Zone::NewYork,
        Zone::Berlin,
        Zone::Kathmandu,
        Zone::Kiritimati,
        Zone::PagoPago,
        Zone::LordHowe,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Zone::Utc => "UTC",
            Zone::NewYork => "America/New_York",
            Zone::Berlin => "Europe/Berlin",
            Zone::Kathmandu => "Asia/Kathmandu",
            Zone::Kiritimati => "Pacific/Kiritimati",
            Zone::PagoPago => "Pacific/Pago_Pago",
            Zone::LordHowe => "Australia/Lord_Howe",
        }
    }

    /// The day that a moment, in seconds since 1970, belongs to.
    pub fn day(self, moment: i64) -> Day {
        Day((moment + self.minutes(moment) * 60).div_euclid(86_400))
    }

    /// The moment, in milliseconds since 1970, of a second of a day on the zone's clock.
    pub fn moment(self, day: Day, second: i64) -> i64 {
        let local = day.0 * 86_400 + second;
        let near = local - self.minutes(local) * 60;
        (local - self.minutes(near) * 60) * 1_000
    }

    /// East of UTC.
    fn minutes(self, moment: i64) -> i64 {
        let (year, ..) = Day(moment.div_euclid(86_400)).parts();
        let at = |day: Day, minutes: i64| day.0 * 86_400 + minutes * 60;
        match self {
            Zone::Utc => 0,
            Zone::NewYork => {
                let from = at(Day::new(year, 3, 8).sunday(), 7 * 60);
                let to = at(Day::new(year, 11, 1).sunday(), 6 * 60);
                if (from..to).contains(&moment) {
                    -4 * 60
                } else {
                    -5 * 60
                }
            }
            Zone::Berlin => {
                let from = at(Day::new(year, 3, 25).sunday(), 60);
                let to = at(Day::new(year, 10, 25).sunday(), 60);
                if (from..to).contains(&moment) {
                    2 * 60
                } else {
                    60
                }
            }
            Zone::Kathmandu => 5 * 60 + 45,
            Zone::Kiritimati => 14 * 60,
            Zone::PagoPago => -11 * 60,
            Zone::LordHowe => {
                let to = at(Day::new(year, 4, 1).sunday(), (2 - 11) * 60);
                let from = at(Day::new(year, 10, 1).sunday(), 2 * 60 - (10 * 60 + 30));
                if (to..from).contains(&moment) {
                    10 * 60 + 30
                } else {
                    11 * 60
                }
            }
        }
    }
}
