//! A page of Markdown: its fenced blocks, and the comments that tell the test how to run them.

use std::path::Path;

pub struct Page {
    /// As a path from the root of the tree.
    pub name: String,
    pub lines: Vec<String>,
    pub steps: Vec<Step>,
    /// `<!-- with: pg_cron, gateway, another server -->`
    pub with: Vec<String>,
    /// `<!-- vendor: shop -->`
    pub vendors: Vec<String>,
}

pub enum Step {
    /// `<!-- test: file -->`: a file of pg_test/docs that runs here and is not shown; or several, with commas.
    Hidden(String),
    Block(Block),
}

pub struct Block {
    pub language: String,
    pub text: String,
    /// The line of the opening fence, counted from 0.
    pub line: usize,
    /// `<!-- not run: the reason -->` directly before it.
    pub not_run: Option<String>,
    /// `<!-- drawing -->` directly before it: a text that nothing prints.
    pub is_drawing: bool,
    /// The block directly behind it that shows its output.
    pub output: Option<Output>,
}

pub struct Output {
    pub text: String,
    /// The lines between its fences.
    pub lines: std::ops::Range<usize>,
    /// Blanks before each line: the block may stand in a list.
    pub indent: usize,
}

impl Page {
    pub fn read(root: &Path, name: &str) -> Page {
        let text = std::fs::read_to_string(root.join(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut page = Page {
            name: name.to_owned(),
            lines,
            steps: Vec::new(),
            with: Vec::new(),
            vendors: Vec::new(),
        };
        page.parse();
        page
    }

    fn parse(&mut self) {
        let lines = self.lines.clone();
        let mut at = 0;
        let (mut not_run, mut is_drawing) = (None, false);
        // Nothing but blank lines lies between the block before and this line.
        let mut follows = false;
        while at < lines.len() {
            let line = lines[at].trim();
            if let Some(language) = line.strip_prefix("```") {
                let indent = lines[at].len() - lines[at].trim_start().len();
                let end = (at + 1..lines.len()).find(|n| lines[*n].trim() == "```");
                let end = end
                    .unwrap_or_else(|| panic!("{}:{}: this block has no end", self.name, at + 1));
                let text: Vec<&str> = lines[at + 1..end]
                    .iter()
                    .map(|line| line.get(indent..).unwrap_or_default())
                    .collect();
                let text = text.join("\n");
                let shown = match self.steps.last_mut() {
                    Some(Step::Block(before)) if follows && language == "text" && !is_drawing => {
                        Some(before).filter(|before| before.is_command() && before.output.is_none())
                    }
                    _ => None,
                };
                if let Some(before) = shown {
                    let lines = at + 1..end;
                    before.output = Some(Output {
                        text,
                        lines,
                        indent,
                    });
                } else {
                    self.steps.push(Step::Block(Block {
                        language: language.to_owned(),
                        text,
                        line: at,
                        not_run: not_run.take(),
                        is_drawing,
                        output: None,
                    }));
                }
                (not_run, is_drawing, follows) = (None, false, true);
                at = end + 1;
                continue;
            }
            if let Some((key, value)) = directive(line) {
                match key {
                    "not run" => not_run = Some(value.to_owned()),
                    "drawing" => is_drawing = true,
                    "test" => self.steps.extend(list(value).map(Step::Hidden)),
                    "vendor" => self.vendors.extend(list(value)),
                    "with" => self.with.extend(list(value)),
                    _ => panic!("{}:{}: unknown comment \"{key}\"", self.name, at + 1),
                }
                follows = false;
            } else if !line.is_empty() {
                assert!(
                    not_run.is_none() && !is_drawing,
                    "{}:{}: the comment before has to stand directly before a block",
                    self.name,
                    at + 1
                );
                follows = false;
            }
            at += 1;
        }
    }

    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.steps.iter().filter_map(|step| match step {
            Step::Block(block) => Some(block),
            Step::Hidden(_) => None,
        })
    }

    /// The lines that a person wrote: all but those of outputs.
    pub fn written_lines(&self) -> impl Iterator<Item = &str> {
        let outputs: Vec<_> = self
            .blocks()
            .filter_map(|block| Some(block.output.as_ref()?.lines.clone()))
            .collect();
        let lines = self.lines.iter().enumerate();
        lines
            .filter(move |(at, _)| !outputs.iter().any(|output| output.contains(at)))
            .map(|(_, line)| line.as_str())
    }

    pub fn has(&self, what: &str) -> bool {
        self.with.iter().any(|with| with == what)
    }
}

impl Block {
    pub fn is_command(&self) -> bool {
        ["sql", "sh"].contains(&self.language.as_str())
    }
}

/// `<!-- key: value -->` or `<!-- key -->`.
fn directive(line: &str) -> Option<(&str, &str)> {
    let inside = line.strip_prefix("<!--")?.strip_suffix("-->")?.trim();
    let (key, value) = inside.split_once(':').unwrap_or((inside, ""));
    Some((key.trim(), value.trim()))
}

fn list(value: &str) -> impl Iterator<Item = String> {
    value.split(',').map(|word| word.trim().to_owned())
}
