/**
 * Words to people. Whatever becomes of stderr (a full disk, a reader that is gone, a terminal that was hung up) never
 * ends a flow.
 */
import { fstatSync, writeSync } from 'node:fs'

/** A reader that goes away is told of by an event, which would end the process if nobody listened. */
export function ignoreStderrErrors(): void {
  if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => undefined)
}

/** What cannot be written is lost; what follows is tried all the same. */
export function writeStderr(text: string): void {
  try {
    // Node's own stream to a file is over with the first write that fails; a full disk may have room again.
    if (fstatSync(2).isFile()) {
      writeSync(2, text)
      return
    }
    ignoreStderrErrors()
    process.stderr.write(text)
  } catch {
    /* there is nobody left to tell */
  }
}
