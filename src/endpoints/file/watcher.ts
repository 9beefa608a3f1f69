import { watch, type FSWatcher } from 'node:fs'
import * as path from 'node:path'
import { nameOf, pathOf } from '../../kit/file-names'

/**
 * Reports changes in folders as soon as the operating system does. It may not (network file systems, too many watches),
 * so polling is needed as well.
 */
export class Watcher {
  private readonly watches = new Map<string, FSWatcher>()

  /** @param changed gets the absolute path of the file; `names` says that files came, went or were renamed */
  constructor(private readonly changed: (file: string, names: boolean) => void) {}

  folders(wanted: ReadonlySet<string>): void {
    for (const [folder, watching] of this.watches)
      if (!wanted.has(folder)) {
        watching.close()
        this.watches.delete(folder)
      }
    for (const folder of wanted) {
      if (this.watches.has(folder)) continue
      try {
        const watching = watch(pathOf(folder), { persistent: false, encoding: 'buffer' }, (event, name) => {
          this.changed(name === null ? folder : path.join(folder, nameOf(name)), event === 'rename')
        })
        watching.on('error', () => {
          watching.close()
          this.watches.delete(folder)
        })
        this.watches.set(folder, watching)
      } catch {
        /* polling finds the change */
      }
    }
  }

  close(): void {
    this.folders(new Set())
  }
}
