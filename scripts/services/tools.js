/** Programs that tests use: shells whose completions they try, and a library that sets the clock of a process. */
'use strict'
const fs = require('fs')

const FOLDERS = ['/bin', '/usr/bin', '/usr/local/bin', '/opt/homebrew/bin']

/** @returns {string | undefined} the shell's file, where it is installed */
function shell(name) {
  return FOLDERS.map((folder) => `${folder}/${name}`).find((file) => fs.existsSync(file))
}

const FAKETIME = ['x86_64', 'aarch64'].map((machine) => `/usr/lib/${machine}-linux-gnu/faketime/libfaketimeMT.so.1`)

/** @returns {string | undefined} the library to preload, where it is installed */
function faketime() {
  return FAKETIME.find((file) => fs.existsSync(file))
}

const kinds = {
  faketime: {
    get file() {
      return faketime()
    },
    needs: 'apt',
    package: 'faketime',
  },
  zsh: {
    get file() {
      return shell('zsh')
    },
    needs: 'apt',
    package: 'zsh',
  },
  fish: {
    get file() {
      return shell('fish')
    },
    needs: 'apt',
    package: 'fish',
  },
}

module.exports = { faketime, kinds, shell }
