/**
 * Waits for what has to come, looking again and again, and fails with what was there instead: a loop without an end
 * outlives the test that ran out of time, keeps the whole run from ending, and tells nobody what it waited for.
 */
export interface UntilOptions {
  readonly limitMs?: number
  readonly everyMs?: number
  /** What there is at the moment, for the error. */
  readonly seen?: () => unknown
}

/** @param holds rejects where it cannot come any more. */
export async function until(
  holds: () => Promise<boolean> | boolean,
  what: string,
  { limitMs = 20_000, everyMs = 10, seen }: UntilOptions = {},
): Promise<void> {
  const end = Date.now() + limitMs
  while (!(await holds())) {
    if (Date.now() > end)
      throw new Error(
        `${what}: not within ${limitMs} ms${seen === undefined ? '' : `; seen: ${JSON.stringify(seen())}`}`,
      )
    await new Promise((resolve) => {
      setTimeout(resolve, everyMs)
    })
  }
}
