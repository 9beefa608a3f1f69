/** Writes to stderr. No failure of stderr (a full disk, a closed pipe, a terminal that hung up) ends a flow. */
import { fstatSync, writeSync } from 'node:fs'

/** The error event of stderr would end the process if nothing listened to it. */
export function ignoreStderrErrors(): void {
  if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => undefined)
}

/** Text that cannot be written is lost. Later texts are tried all the same. */
export function writeStderr(text: string): void {
  try {
    // Node's stream to a file ends at the first failed write. A full disk may have space again later, so files are
    // written directly.
    if (fstatSync(2).isFile()) {
      writeSync(2, text)
      return
    }
    ignoreStderrErrors()
    process.stderr.write(text)
  } catch {
    /* nobody can be told any more */
  }
}
