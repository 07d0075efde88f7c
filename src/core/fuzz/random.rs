//! Random numbers that are the same for the same seed, everywhere.

pub struct Random(u64);

impl Random {
    /// The random numbers of one input of one fuzz.
    pub fn of(seed: u64, name: &str, case: u64) -> Random {
        let name = name.bytes().fold(0_u64, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(byte.into())
        });
        let mut random = Random(seed ^ name.rotate_left(32));
        Random(random.number() ^ case.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn number(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than this.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }

    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// Small ones more often than large ones.
    pub fn few(&mut self, most: usize) -> usize {
        let bound = self.below(most + 1);
        self.below(bound + 1)
    }

    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number() as u8).collect()
    }

    /// A number at one of the bounds where readers go wrong, or anywhere.
    pub fn edge(&mut self) -> u64 {
        let bits = self.pick(&[0, 1, 7, 8, 15, 16, 24, 31, 32, 53, 63, 64]);
        let power = 1_u64.checked_shl(bits).unwrap_or(0);
        match self.below(4) {
            0 => power.wrapping_sub(1),
            1 => power,
            2 => power.wrapping_add(1),
            _ => self.number() >> self.below(64),
        }
    }

    /// Text with what is special somewhere: quotes, separators, line ends, signs, characters of every length.
    pub fn text(&mut self, most: usize) -> String {
        const SPECIAL: &[char] = &[
            '"',
            '\'',
            '\\',
            ',',
            ';',
            '\t',
            '\n',
            '\r',
            ' ',
            '/',
            '<',
            '>',
            '&',
            '{',
            '}',
            '[',
            ']',
            ':',
            '=',
            '%',
            '$',
            '#',
            '-',
            '+',
            '.',
            '0',
            '9',
            '\u{1}',
            '\u{7f}',
            '\u{a0}',
            'é',
            'ß',
            '\u{2028}',
            '\u{feff}',
            '€',
            '日',
            '\u{fffd}',
            '😀',
            '\u{10ffff}',
        ];
        let length = self.few(most);
        let plain = self.percent(40);
        let letter = |random: &mut Random| match random.below(4) {
            0 if !plain => random.pick(SPECIAL),
            _ => char::from(b'a' + random.below(26) as u8),
        };
        (0..length).map(|_| letter(self)).collect()
    }

    pub fn word(&mut self, most: usize) -> String {
        let length = self.between(1, most.max(1));
        (0..length)
            .map(|_| char::from(b'a' + self.below(26) as u8))
            .collect()
    }
}
