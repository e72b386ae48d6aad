//! Numbers for texts that come again and again, so that rows are told apart without copying or comparing texts.

use std::collections::HashMap;

/// Texts, numbered from 0 in the order in which they came first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    all: Vec<String>,
    numbers: HashMap<String, usize>,
    last: usize,
}

impl Words {
    /// The number of a text; a new one for a new text.
    pub(crate) fn number(&mut self, text: &str) -> usize {
        // Rows have the same order at every tick: mostly it is the text of the row before, or the one that followed.
        for guess in [self.last, self.last + 1, 0] {
            if self.all.get(guess).is_some_and(|word| word == text) {
                self.last = guess;
                return guess;
            }
        }
        self.last = match self.numbers.get(text) {
            Some(number) => *number,
            None => {
                self.all.push(text.to_owned());
                self.numbers.insert(text.to_owned(), self.all.len() - 1);
                self.all.len() - 1
            }
        };
        self.last
    }

    /// The text of a number.
    pub(crate) fn text(&self, number: usize) -> &str {
        self.all.get(number).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_one_number() {
        let mut words = Words::default();
        let order = ["a", "b", "", "a", "a", "b", "c", "", "c", "b"];
        let numbers: Vec<usize> = order.iter().map(|text| words.number(text)).collect();
        assert_eq!(numbers, [0, 1, 2, 0, 0, 1, 3, 2, 3, 1]);
        assert!(
            order
                .iter()
                .zip(numbers)
                .all(|(text, number)| words.text(number) == *text)
        );
        assert_eq!(words.text(99), "");
    }
}
