export function templateFaults(_path: string, _given: object): readonly string[] { return [] }
