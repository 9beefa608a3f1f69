/** Words to people. Whatever becomes of stderr (a full disk, a reader that is gone, a terminal that was hung up) never ends a flow. */
import { writeSync } from 'node:fs'
import { kindOf } from '../kit/pipes'

/** A reader that goes away is told of by an event, which would end the process if nobody listened. */
export function listenToStderr(): void { process.stderr.on('error', () => undefined) }

/** What cannot be written is lost; what follows is tried all the same. */
export function tell(text: string): void {
  try {
    const kind = kindOf(2)
    // Node's own stream to a file is over with the first write that fails; a full disk may have room again.
    if (kind === 'file' || kind === 'device') writeSync(2, text)
    else process.stderr.write(text)
  } catch { /* there is nobody left to tell */ }
}
