import type { Log } from '../contract'

/** Warns of what nobody may miss, also where warnings are held back. */
export function warnLasting(log: Log, message: string, facts?: object): void {
  if (log.error === undefined) log.warn(message, facts)
  else log.error(message, facts)
}
