/**
 * Removes secret values from texts for people. A run has one redactor, which learns each secret when it becomes known.
 */
const MIN_LENGTH = 6
/** Tokens may rotate for years, so only the newest values are kept. */
const MAX_VALUES = 512

export class Redactor {
  private readonly values = new Set<string>()
  private pattern: RegExp | undefined

  /** Shorter values are not learnt, because they would remove harmless text everywhere. */
  learn(value: string): void {
    for (const form of spellingsOf(value)) {
      if (form.length < MIN_LENGTH || this.values.has(form)) continue
      this.values.add(form)
      this.pattern = undefined
    }
    for (const oldest of this.values) {
      if (this.values.size <= MAX_VALUES) break
      this.values.delete(oldest)
    }
  }

  redact(text: string): string {
    if (this.values.size === 0) return text
    this.pattern ??= new RegExp(
      [...this.values]
        .sort((a, b) => b.length - a.length)
        .map((value) => value.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&'))
        .join('|'),
      'g',
    )
    return text.replace(this.pattern, '***')
  }
}

/** Returns the value as it is, as URIs and JSON write it, and line by line if it has several lines (a key in PEM). */
function spellingsOf(value: string): readonly string[] {
  const forms = [
    value,
    encodeURIComponent(value.toWellFormed()),
    encodeURI(value.toWellFormed()),
    JSON.stringify(value).slice(1, -1),
  ]
  return value.includes('\n') ? [...forms, ...value.split(/\r?\n/).map((line) => line.trim())] : forms
}
