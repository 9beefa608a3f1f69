export type Kind = 'kcl-2' | 'kcl-3'
export function available(): readonly Kind[]
/** File and arguments of a process; options are those of kcl/Worker.java. */
export function command(kind: Kind, options: Readonly<Record<string, string>>): readonly [string, readonly string[]]
