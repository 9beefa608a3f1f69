/**
 * A disk of its own in a file, whose power can be cut: what was not yet written to it is gone, as far as the file
 * system lets it.
 */
import { execFileSync, spawnSync, type ExecFileSyncOptions } from 'node:child_process'
import { closeSync, constants, copyFileSync, ftruncateSync, mkdirSync, openSync, rmSync } from 'node:fs'
import { join } from 'node:path'

export type FileSystemKind = 'ext4' | 'xfs'
/** xfs refuses to be smaller; the file is sparse. */
const BYTES: Readonly<Record<FileSystemKind, number>> = { ext4: 96 << 20, xfs: 320 << 20 }

const quiet: ExecFileSyncOptions = { stdio: ['ignore', 'ignore', 'pipe'] }

export class LoopDisk {
  /** Where it is mounted. */
  readonly path: string
  private readonly image: string
  private mounted = false

  private constructor(folder: string) {
    this.path = join(folder, 'disk')
    this.image = join(folder, 'disk.img')
  }

  /** Made and mounted below the folder; end it with `remove`. */
  static make(kind: FileSystemKind, folder: string): LoopDisk {
    const disk = new LoopDisk(folder)
    mkdirSync(disk.path)
    const file = openSync(disk.image, 'w')
    ftruncateSync(file, BYTES[kind])
    closeSync(file)
    execFileSync(`mkfs.${kind}`, ['-q', disk.image], quiet)
    disk.mount()
    return disk
  }

  mount(): void {
    execFileSync('mount', ['-o', 'loop', this.image, this.path], quiet)
    this.mounted = true
  }

  /** From now on nothing reaches the disk, the journal included; every call that needs it fails. */
  cut(): void {
    execFileSync('xfs_io', ['-x', '-c', 'shutdown', this.path], quiet)
  }

  /**
   * Mounted again after a cut, once no process uses it: the file system recovers what its journal holds. @param keep
   * where the image goes as the cut left it
   */
  recover(keep: string): void {
    this.unmount()
    copyFileSync(this.image, keep, constants.COPYFILE_FICLONE)
    this.mount()
  }

  unmount(): void {
    if (this.mounted) execFileSync('umount', [this.path], quiet)
    this.mounted = false
  }

  remove(): void {
    if (this.mounted) spawnSync('umount', ['-l', this.path])
    rmSync(this.image, { force: true })
  }
}

/** Why there are none here; undefined where there are. */
export function whyNoLoopDisk(kind: FileSystemKind): string | undefined {
  if (process.platform !== 'linux') return `no loop devices on ${process.platform}`
  if (process.getuid?.() !== 0) return 'only root can mount'
  for (const [tool, from] of [
    [`mkfs.${kind}`, kind === 'xfs' ? 'xfsprogs' : 'e2fsprogs'],
    ['xfs_io', 'xfsprogs'],
    ['losetup', 'mount'],
  ] as const) {
    if (spawnSync('which', [tool]).status !== 0) return `no ${tool} here: apt-get install ${from}`
  }
  return spawnSync('losetup', ['--find']).status === 0 ? undefined : 'no free loop device here'
}
